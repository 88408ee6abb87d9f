"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const color = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
  const FEW = 100; // points that are drawn larger
  const NEAR = 24; // pixels in which a point counts as under the cursor

  const withUnit = (axis) => axis.label + (axis.unit ? ` [${axis.unit}]` : "");
  const number = (value, digits) =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const shown = (axis, value) =>
    axis.label.startsWith("fraction of pings") ? number(100 * value, 1) + " %"
      : axis.label === "number of the ping" ? "ping " + value
        : number(value, axis.unit === "s" ? 3 : 1) + " " + axis.unit;

  // The ticks of a logarithmic axis that get a label: 1, 2, 5 of every decade; only 1 of many decades.
  function logLabels(u, ticks) {
    const many = ticks[ticks.length - 1] / ticks[0] > 500;
    const few = ticks.length < 6;
    const first = (t) => Number(t.toExponential()[0]);
    return ticks.map((t) => (few || (many ? [1] : [1, 2, 5]).includes(first(t)) ? t : null));
  }

  // Round numbers; uPlot's own begin at the end of the axis, whatever that is.
  function logTicks(u, axis, low, high) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
      for (let digit = 1; digit < 10; digit++) {
        const tick = Number((digit * 10 ** power).toPrecision(1));
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  }

  // All series in one table by x, in the units of the axes; with ccdf, the share that is slower.
  function aligned(chart, ccdf) {
    const slower = (ys) => ys.map((y) => (y < 1 ? 1 - y : null));
    const tables = chart.series.map((s) => [s.x, ccdf ? slower(s.y) : s.y]);
    const [x, ...ys] = uPlot.join(tables);
    const scaled = (values, unit_ns) => values.map((v) => (v == null ? v : v / unit_ns));
    return [scaled(x, chart.x.unit_ns), ...ys.map((y) => scaled(y, chart.y.unit_ns))];
  }

  // The value of a series at the cursor: that of the nearest point, or of the step below it.
  function pointed(chart, u, series, index) {
    const values = u.data[series];
    if (chart.kind === "steps") {
      while (index >= 0 && values[index] == null) index--;
      return index;
    }
    const at = (i) => u.valToPos(u.data[0][i], "x");
    const here = at(index);
    for (let near = 0; near < values.length; near++) {
      for (const i of [index - near, index + near]) {
        if (values[i] != null && Math.abs(at(i) - here) <= NEAR) return i;
      }
      const reach = [index - near, index + near].filter((i) => i >= 0 && i < values.length);
      if (!reach.some((i) => Math.abs(at(i) - here) <= NEAR)) return -1;
    }
    return -1;
  }

  class Chart {
    constructor(figure, chart) {
      this.figure = figure;
      this.chart = chart;
      this.box = figure.querySelector(".plot");
      this.where = figure.querySelector(".where");
      this.spoken = figure.querySelector(".spoken");
      this.log = figure.querySelector(".log");
      this.whole = figure.querySelector(".whole"); // also what is far away
      this.ccdf = figure.querySelector(".ccdf");
      this.hidden = new Set();
      this.data = aligned(chart);
      this.names = new Map();
      for (const s of chart.series) {
        s.x.forEach((x, i) => {
          if (s.seq) this.names.set(x / chart.x.unit_ns, `round ${s.round[i]}, icmp_seq ${s.seq[i]}`);
        });
      }
      this.places = chart.series.map((s) => new Map(s.x.map((x, i) => [x / chart.x.unit_ns, i])));
      this.axis = chart.kind === "steps" ? chart.x : chart.y; // the one that can be logarithmic
      this.log.checked = this.axis.log;
      figure.querySelector(".tools").hidden = false;
      this.makeLegend();
      this.draw();
      this.listen();
    }

    makeLegend() {
      const legend = this.figure.querySelector(".legend");
      this.values = this.chart.series.map((s, i) => {
        const button = document.createElement("button");
        const key = document.createElement("i");
        const value = document.createElement("output");
        const line = this.chart.kind === "steps" ? (s.dashed ? " dashed" : " line") : "";
        key.className = "key" + (s.slug === "not-corrected" ? " ring" : line);
        button.type = "button";
        button.style.setProperty("--key", `var(--series-${s.slug})`);
        button.setAttribute("aria-pressed", "true");
        button.append(key, s.name, value);
        button.addEventListener("click", () => {
          const show = this.hidden.delete(i);
          if (!show) this.hidden.add(i);
          button.setAttribute("aria-pressed", String(show));
          this.plot.setSeries(i + 1, { show });
        });
        legend.append(button);
        return value;
      });
    }

    // What an axis shows when everything is shown.
    range(axis, log) {
      const end = axis === this.axis ? this.end() : Infinity;
      if (log) return (low, high) => [low * 0.9, Math.min(high * 1.1, end)];
      if (axis === this.axis && end < Infinity) return () => [0, end];
      if (axis.label.startsWith("fraction") && this.ccdf.checked) return (low) => [low * 0.8, 1.2];
      if (axis.label === "fraction of pings") return () => [0, 1.02];
      if (axis === this.axis) return (low, high) => [0, high * 1.05 || 1];
      return (low, high) => { const margin = (high - low) * 0.01 || 1; return [low - margin, high + margin]; };
    }

    // Up to where the scale goes that is clipped.
    end() {
      const { clip } = this.chart;
      return clip && !this.whole.checked ? clip.at_ns / this.axis.unit_ns : Infinity;
    }

    scale(axis) {
      const log = (axis === this.axis && this.log.checked) || (axis === this.chart.y && this.ccdf?.checked);
      const zooms = axis === this.chart.x; // a range that was zoomed to gets no margin
      const all = this.range(axis, log);
      return {
        time: false, distr: log ? 3 : 1,
        range: (u, low, high) => (low == null ? [1, 10] : zooms && this.zoomed ? [low, high] : all(low, high)),
      };
    }

    draw(keep) {
      const { chart } = this;
      const old = this.plot && keep ? { ...this.plot.scales.x } : null;
      if (this.plot) this.plot.destroy();
      const axis = (of, size) => ({
        label: of === chart.y && this.ccdf?.checked ? "fraction of pings that is slower" : withUnit(of), labelFont: "600 " + FONT, font: FONT, labelSize: 18, size, gap: 4,
        stroke: color("quiet"),
        grid: { stroke: color("line"), width: 1 },
        ticks: { stroke: color("line"), width: 1, size: 5 },
        ...((of === this.axis && this.log.checked) || (of === chart.y && this.ccdf?.checked) ? { splits: logTicks, filter: logLabels } : {}),
        values: (u, ticks) => ticks.map((t) => (t == null ? "" : t.toLocaleString("en", { maximumSignificantDigits: 6 }))),
      });
      const series = chart.series.map((s, i) => {
        const stroke = color("series-" + s.slug);
        const ring = s.slug === "not-corrected";
        const points = ring
          ? { show: true, size: 14, width: 2, stroke, fill: "transparent" }
          : { show: true, size: s.rows > FEW ? 5 : 8, width: 0, fill: stroke + "b3", stroke };
        const line = { paths: uPlot.paths.stepped({ align: 1 }), width: 2, points: { show: false }, dash: s.dashed ? [7, 4] : [] };
        const kind = chart.kind === "steps" ? line : { paths: () => null, points };
        return { label: s.name, stroke, show: !this.hidden.has(i), ...kind };
      });
      this.zoomed = Boolean(old) && this.zoomed;
      this.plot = new uPlot({
        width: this.box.clientWidth, height: this.height(), legend: { show: false },
        padding: [12, 12, 0, 0],
        scales: { x: this.scale(chart.x), y: this.scale(chart.y) },
        axes: [axis(chart.x, 30), axis(chart.y, 48)],
        series: [{}, ...series],
        cursor: {
          drag: { x: true, y: false, dist: 6 },
          dataIdx: (u, i, index) => (i === 0 ? index : pointed(chart, u, i, index)),
          points: { size: 9 },
        },
        hooks: {
          setCursor: [() => this.tell()],
          setSelect: [(u) => { if (u.select.width > 0) this.zoomed = true; }],
          setScale: [(u, key) => { if (key === "x") this.buttons(); }],
          drawClear: [(u) => this.shade(u)],
        },
      }, this.data, this.box);
      if (old && this.zoomed) this.plot.setScale("x", { min: old.min, max: old.max });
      this.plot.over.addEventListener("dblclick", () => this.showAll());
      this.plot.over.addEventListener("click", () => this.open());
      this.buttons();
      this.tell();
    }

    height() {
      return Math.round(Math.min(420, Math.max(300, this.box.clientWidth * 0.42)));
    }

    // Bands where events were lost.
    shade(u) {
      const { left, top, width, height } = u.bbox;
      u.ctx.save();
      u.ctx.fillStyle = color("problem") + "38";
      for (const band of this.chart.bands) {
        const [from, to] = band.map((end) => end == null ? null : u.valToPos(end / this.chart.x.unit_ns, "x", true));
        const begin = Math.max(from ?? left, left);
        const end = Math.min(to ?? left + width, left + width);
        if (end > left && begin < left + width) u.ctx.fillRect(begin, top, Math.max(end - begin, 2), height);
      }
      u.ctx.restore();
    }

    buttons() {
      this.figure.querySelector(".zoom-out").disabled = !this.zoomed;
    }

    // Write what is under the cursor into the legend.
    tell() {
      const u = this.plot;
      if (!u) return;
      const index = u.cursor.idx;
      const off = u.cursor.left < 0 || index == null;
      const { chart } = this;
      const x = off ? null : u.data[0][index];
      const said = off ? [] : [shown(chart.x, x) + (this.names.has(x) ? `, ${this.names.get(x)}` : "")];
      chart.series.forEach((s, i) => {
        const at = off ? -1 : u.cursor.idxs[i + 1];
        const value = at == null || at < 0 ? null : u.data[i + 1][at];
        this.values[i].textContent = off ? "" : value == null ? "–" : shown(chart.y, value);
        if (value != null) said.push(`${s.name} ${shown(chart.y, value)}`);
      });
      this.where.textContent = said[0] ?? "";
      this.said = said.join("; ");
    }

    zoom(factor) {
      const u = this.plot;
      const { min, max } = u.scales.x;
      const middle = u.cursor.left >= 0 && u.cursor.idx != null ? u.data[0][u.cursor.idx] : (min + max) / 2;
      const half = ((max - min) * factor) / 2;
      const low = Math.max(min, middle - half);
      this.zoomed = true;
      u.setScale("x", { min: low, max: Math.min(max, low + 2 * half) });
      this.buttons();
    }

    // Show the ping under the cursor, event by event.
    open() {
      const u = this.plot;
      if (u.cursor.left < 0 || u.cursor.idx == null) return;
      let nearest = null;
      this.chart.series.forEach((s, i) => {
        const at = u.cursor.idxs[i + 1];
        const value = at == null || at < 0 ? null : u.data[i + 1][at];
        if (value == null || this.hidden.has(i)) return;
        const place = this.places[i].get(u.data[0][at]);
        const off = Math.abs(u.valToPos(value, "y") - u.cursor.top) + (s.place ? 0 : 5);
        if (place != null && (!nearest || off < nearest.off)) nearest = { off, s, place };
      });
      if (nearest) showPing(nearest.s.place, nearest.s.round[nearest.place], nearest.s.seq[nearest.place]);
    }

    showAll() {
      const x = this.data[0];
      this.zoomed = false;
      this.plot.setScale("x", { min: x[0], max: x[x.length - 1] });
      this.buttons();
    }

    // Move to the next x that is shown, or by a tenth of all.
    step(by) {
      const u = this.plot;
      const x = u.data[0];
      const drawn = (i) => u.data.some((ys, s) => s && u.series[s].show && ys[i] != null);
      const { min, max } = u.scales.x;
      const all = x.map((_, i) => i).filter((i) => x[i] >= min && x[i] <= max && drawn(i));
      if (!all.length) return;
      const far = Math.abs(by) > 1 ? Math.max(1, Math.round(all.length / 10)) : 1;
      const now = u.cursor.left < 0 || u.cursor.idx == null ? -1 : all.findIndex((i) => i >= u.cursor.idx);
      const next = now < 0 ? 0 : Math.min(all.length - 1, Math.max(0, now + Math.sign(by) * far));
      const index = all[next];
      const first = u.data.findIndex((ys, s) => s && u.series[s].show && ys[index] != null);
      u.setCursor({ left: u.valToPos(x[index], "x"), top: u.valToPos(u.data[first][index], "y") });
      this.spoken.textContent = this.said;
    }

    csv() {
      const { chart } = this;
      const [x, y] = chart.kind === "steps" ? ["rtt_ns", "fraction"]
        : [chart.x.unit === "s" ? "after_ns" : "number", chart.id === "rtt" ? "rtt_ns" : "latency_ns"];
      const rows = [["series", "round", "seq", x, y]];
      for (const s of chart.series) {
        s.x.forEach((at, i) => rows.push([`"${s.name}"`, ...(s.seq ? [s.round[i], s.seq[i]] : []), at, s.y[i]]));
      }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([rows.map((r) => r.join(",")).join("\n") + "\n"], { type: "text/csv" }));
      link.download = chart.id + ".csv";
      link.click();
      URL.revokeObjectURL(link.href);
    }

    listen() {
      const on = (name, act) => this.figure.querySelector(name).addEventListener("click", act);
      on(".zoom-in", () => this.zoom(0.5));
      on(".zoom-out", () => this.showAll());
      on(".csv", () => this.csv());
      this.log.addEventListener("change", () => this.draw(true));
      this.whole?.addEventListener("change", () => this.draw(true));
      this.ccdf?.addEventListener("change", () => {
        this.data = aligned(this.chart, this.ccdf.checked);
        this.draw(true);
      });
      const keys = {
        ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1),
        PageUp: () => this.step(-10), PageDown: () => this.step(10),
        Enter: () => this.open(), "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), Escape: () => this.showAll(),
      };
      this.box.addEventListener("keydown", (event) => {
        if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        keys[event.key]();
      });
      new ResizeObserver(() => {
        const width = this.box.clientWidth;
        if (width && width !== this.plot.width) this.plot.setSize({ width, height: this.height() });
      }).observe(this.box);
    }
  }

  const choose = document.getElementById("choose");
  const every = JSON.parse(document.getElementById("every-ping").textContent);
  const us = (ns) => (ns == null ? "-" : number(ns / 1000, 1) + " us");
  const made = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text != null) element.textContent = text;
    if (name) element.className = name;
    return element;
  };

  function showChosen() {
    for (const ping of document.querySelectorAll("#ping article")) ping.hidden = ping.id !== choose.value;
  }

  // Show a ping that was clicked on; the page has the events of those that were traced.
  function showPing(place, round, seq) {
    if (!choose) return;
    let id = `ping-${round}-${seq}`;
    if (place !== "c" || !document.getElementById(id)) {
      id = "clicked";
      document.getElementById(id)?.remove();
      choose.querySelector("[value=clicked]")?.remove();
      const option = made("option", `clicked: round ${round}, icmp_seq ${seq}`);
      option.value = id;
      choose.prepend(option);
      document.getElementById("ping").append(articleOf(id, place, round, seq));
    }
    choose.value = id;
    showChosen();
    const section = document.getElementById("ping");
    section.scrollIntoView({ block: "start" });
    section.focus({ preventScroll: true });
  }

  function articleOf(id, place, round, seq) {
    const article = made("article");
    article.id = id;
    const ping = every.pings[`${place}-${round}-${seq}`];
    article.append(made("h3", `icmp_seq ${seq}, round ${round}${ping ? ": " + ping[0] : ""}`));
    if (!ping) {
      article.append(made("p", place ? "The page does not hold its events: `maceproc explain` shows them."
        : "It ran untraced: there are no events of it."));
      return article;
    }
    const [, reason, rtt, ...rest] = ping;
    const events = rest.pop();
    if (reason) article.append(made("p", reason[0].toUpperCase() + reason.slice(1) + "."));
    let end = 0;
    const ends = [];
    for (const took of rest.slice(0, -1)) { if (took == null) break; ends.push(end += took); }
    const segmentAt = (after) => (after <= 0 ? "" : every.segments[ends.findIndex((e) => after <= e)] ?? "");
    const last = events[events.length - 1] || 1;
    const table = made("table", null, "waterfall");
    const body = made("tbody");
    let before = 0;
    for (let i = 0; i < events.length; i += 2) {
      const [where, event] = every.labels[events[i]].split(/ (?=[^ ]*$)/);
      const after = events[i + 1];
      const segment = segmentAt(after);
      const row = made("tr");
      const what = made("td", event + " ");
      what.append(made("small", where + (segment ? " · " + segment : "")));
      const bars = made("td", null, "bars");
      const track = made("div", null, "track");
      const bar = made("i", null, "bar");
      bar.style.cssText = `left:${(100 * before) / last}%;width:${(100 * (after - before)) / last}%;` +
        `background:var(--${segment ? "segment-" + segment.replace(" ", "-") : "line"})`;
      track.append(bar);
      bars.append(track);
      row.append(made("td", us(after), "number"), made("td", us(after - before), "number"), what, bars);
      body.append(row);
      before = after;
    }
    const head = made("thead");
    const heads = made("tr");
    for (const name of ["after", "step", "event", "bar"]) heads.append(made("th", name));
    head.append(heads);
    table.append(head, body);
    const facts = made("dl", null, "facts");
    [["RTT as printed", rtt], ...every.segments.map((name, i) => [name, rest[i]])].forEach(([name, ns]) => {
      const fact = made("div");
      fact.append(made("dt", name), made("dd", us(ns)));
      facts.append(fact);
    });
    article.append(table, facts);
    return article;
  }

  const drawn = [...document.querySelectorAll("[data-chart]")].map(
    (figure) => new Chart(figure, charts.find((chart) => chart.id === figure.dataset.chart)));

  // Light or dark: as the system says, until the reader chooses.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  function themed() {
    for (const chart of drawn) chart.draw(true);
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use ${dark() ? "light" : "dark"} colours`);
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    themed();
  });
  system.addEventListener("change", themed);
  themed();

  // Show one ping at a time.
  if (choose) {
    choose.addEventListener("change", showChosen);
    showChosen();
  }
})();

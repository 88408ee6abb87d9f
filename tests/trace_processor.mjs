// Runs Perfetto's own trace processor (WebAssembly) on a trace: node trace_processor.mjs DIR TRACE SQL...
// Prints a JSON list with the rows of each query. DIR holds trace_processor.wasm, the glue that
// Emscripten made for a browser's worker, and the UI's engine, which speaks its protocol.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

const [directory, trace, ...queries] = process.argv.slice(2);
const { EngineBase } = await import(pathToFileURL(`${directory}/engine.mjs`));

// The glue expects to be a worker, asks for the binary over HTTP, and hides its bridge.
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = function WorkerGlobalScope() {};
globalThis.location = { href: pathToFileURL(directory).href };
globalThis.binary = new Uint8Array(readFileSync(`${directory}/trace_processor.wasm`));
let glue = readFileSync(`${directory}/engine_bundle.node.js`, "utf8");
for (const [found, wanted] of [
  ["this.useMemory64 = hasMemory64Support();", "this.useMemory64 = false;"],
  ["locateFile: (s) => s,", "locateFile: (s) => s, wasmBinary: globalThis.binary,"],
  ["const wasmBridge = new wasm_bridge_1.WasmBridge();",
   "const wasmBridge = globalThis.bridge = new wasm_bridge_1.WasmBridge();"],
]) {
  if (!glue.includes(found)) throw new Error(`unlike what was expected: no ${found}`);
  glue = glue.replace(found, wanted);
}
vm.runInThisContext(glue);

class Engine extends EngineBase {
  mode = "WASM";
  id = "test";
  constructor(port) {
    super();
    this.port = port;
    port.onmessage = (message) => this.onRpcResponseBytes(message.data);
  }
  rpcSendRequestBytes(data) {
    this.port.postMessage(data);
  }
}

const channel = new MessageChannel();
globalThis.bridge.initialize(channel.port1);
const engine = new Engine(channel.port2);
console.warn = () => {};
await engine.parse(new Uint8Array(readFileSync(trace)));
await engine.notifyEof();
const results = [];
for (const sql of queries) {
  const result = await engine.query(sql);
  if (result.error()) throw new Error(result.error());
  const rows = [];
  for (const row = result.iter({}); row.valid(); row.next()) {
    const values = result.columns().map((name) => [name, row.get(name)]);
    rows.push(Object.fromEntries(values));
  }
  results.push(rows);
}
const plain = (_key, value) => (typeof value === "bigint" ? Number(value) : value);
process.stdout.write(JSON.stringify(results, plain), () => process.exit(0));

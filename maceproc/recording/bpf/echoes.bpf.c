// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Follow every ICMP echo of some network devices, in the kernel.
 *
 *     container's device         outer device                          remote
 *          queued ---------------- outer_queued -- sent ------------------.
 *          received -------------- outer_received ------------------------'
 *
 * One row leaves the kernel for an echo, with the times of these points. Two points belong to one
 * packet when the skb has the same address and the packet carries the same content; a request and a
 * reply belong together when the reply answers the addresses, the identifier and the sequence number
 * that left the outer device, and returns the content. Whatever is not certain is counted.
 *
 * Everything is in plain arrays that user space maps into its memory: no helper is called for a
 * packet but the clock and the copy of its header, and nobody is woken.
 *
 * No vmlinux.h: only the fields that are read are declared, and CO-RE finds where they are.
 */
typedef unsigned char __u8, u8;
typedef unsigned short __u16, u16, __be16;
typedef unsigned int __u32, u32, __be32, __wsum;
typedef unsigned long long __u64, u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __sum16;
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
};
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define READ_FROM_BTF __attribute__((preserve_access_index))
struct ns_common {
	unsigned int inum;
} READ_FROM_BTF;
struct net {
	struct ns_common ns;
} READ_FROM_BTF;
typedef struct {
	struct net *net;
} READ_FROM_BTF possible_net_t;
struct net_device {
	int ifindex;
	possible_net_t nd_net;
} READ_FROM_BTF;
struct sk_buff {
	struct net_device *dev;
	unsigned int len, data_len;
	u16 protocol, network_header;
	unsigned char *head, *data;
} READ_FROM_BTF;

/* What a device is to us: bits, by the tracepoint that tells it. */
enum {
	INNER_QUEUED = 1 << 0,
	OUTER_QUEUED = 1 << 1,
	OUTER_SENT = 1 << 2,
	OUTER_RX = 1 << 3,		/* outer_received, by netif_rx */
	OUTER_RECEIVE = 1 << 4,		/* outer_received, by netif_receive_skb */
	INNER_RX = 1 << 5,		/* received, by netif_rx */
	INNER_RECEIVE = 1 << 6,		/* received, by netif_receive_skb */
};

struct device {
	u32 netns;	/* inode number; 0: no entry */
	u32 ifindex;
	u32 roles;
	u32 container;	/* the number that user space gave it */
};

#define DEVICES 4096
#define PROBES 8

/* What an echo carries, and what no device on the way changes. */
struct content {
	u64 words[2];	/* the payload's first 16 bytes; ping keeps its send stamp there */
	u16 seq;
	u16 sum;	/* of all bytes but type and identifier, as the ICMP checksum tells it */
	u16 len;	/* of the ICMP message [bytes] */
	u8 family;	/* 4 or 6 */
	u8 payload;	/* bytes of `words` that the packet has */
};

struct echo {
	struct content content;
	u64 source[2];
	u64 destination[2];
	u16 id;
	u8 is_reply;
	u8 fragment;
};

enum {	/* flags of a row */
	ANSWERED = 1 << 0,	/* the reply was seen at the outer device */
	RECEIVED = 1 << 1,	/* ... and on the container's device */
	REPEATED = 1 << 2,	/* another reply came */
	TWIN = 1 << 3,		/* another request with the same addresses, id and seq was on its way */
	FRAGMENTED = 1 << 4,	/* the first fragment was followed */
	ALTERED = 1 << 5,	/* the reply does not return what the request carried */
	GIVEN_UP = 1 << 6,	/* its place was needed for another echo: it may yet be answered */
};

struct row {
	u64 number;		/* from 1; 0 while the row is written */
	u64 queued_ns;
	u64 outer_queued_ns;
	u64 sent_ns;		/* 0: not watched */
	u64 outer_received_ns;
	u64 received_ns;
	u64 local[2];		/* at the outer device */
	u64 remote[2];
	u64 target[2];		/* the destination as the container says it */
	u64 stamp;
	u64 request_skb;
	u64 reply_skb;
	u32 netns;
	u32 container;
	u32 inner_ifindex;
	u32 outer_ifindex;
	u32 outer_in_ifindex;
	u32 pid;
	u16 id;			/* in the container */
	u16 outer_id;
	u16 seq;
	u16 len;
	u8 family;
	u8 flags;
	u8 padding[6];
};

/* A packet between two devices, by its skb. */
struct passage {
	u32 lock;
	u32 place;		/* of its echo in `pending`, from 1 */
	u64 skb;
	u64 queued_ns;
	u64 generation;		/* of that place */
	struct content content;
	u64 target[2];
	u32 netns, container, ifindex, pid;
	u16 id;
	u8 fragment;
};

/* An echo whose request has left. */
struct pending {
	u32 lock;
	u32 padding;
	u64 generation;		/* how many echoes had this place */
	u64 taken;		/* user space has given that generation as unanswered */
	struct content content;
	struct row row;
};
enum { FREE, SENT, DONE };	/* in `states` */

#define PASSAGES 4096	/* as passage_of() has it */
#define PENDING 16384
#define ROWS 32768

/* What went wrong, by CPU. */
enum {
	BUSY,			/* another CPU held the slot */
	OVERWRITTEN,		/* a passage or an echo gave its slot to another while on its way */
	OTHER_CONTENT,		/* an skb address came back with another packet */
	UNREADABLE,		/* the header is not in the linear part, or cut */
	NO_REQUEST,		/* a reply on the container's device whose way in was not followed */
	UNKNOWN_HEADERS,	/* IPv6 extension headers that are not understood */
	REPEATED_LATER,		/* another reply to an echo whose row was written */
	LATE,			/* a reply to an echo that was given as unanswered */
	ENTERED,		/* requests queued on a container's device: nothing went wrong */
};
#define CPUS 256

/* What user space maps, in one piece: memory.py declares the same. */
struct {
	u64 rows_written;
	u32 device_mask;	/* how much of `devices` is in use: few devices are in few pages */
	u32 padding;
	u8 ifindexes[256];	/* that are in `devices`, by their low byte: most packets end here */
	u64 counts[CPUS][16];
	struct device devices[DEVICES];
	u8 states[PENDING];	/* apart, so that user space finds those that wait at once */
	struct row rows[ROWS];
	struct pending pending[PENDING];
	struct passage outbound[PASSAGES];
	struct passage inbound[PASSAGES];
} memory;

#define RECENT_NS 1000000000ULL	/* an older passage is given up, not lost */

static __always_inline void count(u32 what)
{
	memory.counts[bpf_get_smp_processor_id() & (CPUS - 1)][what & 15] += 1;
}

static __always_inline int try_lock(u32 *lock)
{
	return __sync_lock_test_and_set(lock, 1) == 0;
}

static __always_inline void unlock(u32 *lock)
{
	/* A release store; user space reads what was written before it. */
	__sync_lock_test_and_set(lock, 0);
}

static __always_inline const struct device *find_device(const struct net_device *dev)
{
	u32 ifindex = dev->ifindex, mask = memory.device_mask & (DEVICES - 1), netns, i;

	if (!memory.ifindexes[ifindex & 0xff])
		return 0;
	netns = dev->nd_net.net->ns.inum;
#pragma unroll
	for (i = 0; i < PROBES; i++) {
		const struct device *d = &memory.devices[(ifindex * 31 + netns + i) & mask];

		if (d->ifindex == ifindex && d->netns == netns)
			return d;
		if (!d->netns)
			return 0;
	}
	return 0;
}

#define ETH_P_IP 0x0008		/* as it stands in memory on little endian */
#define ETH_P_IPV6 0xdd86
#define ETH_P_8021Q 0x0081
#define ICMP 1
#define ICMPV6 58

static __always_inline u16 be16(const u8 *p)
{
	return p[0] << 8 | p[1];
}

static __always_inline u16 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff ? 0 : sum;	/* both are zero, in one's complement */
}

/* Read the ICMP header at `icmp`, of which `have` bytes are linear and `len` are in the packet. */
static __always_inline int read_icmp(const u8 *icmp, u32 have, u32 len, struct echo *e)
{
	u8 h[24] = {};
	u32 type, sum;

	if (have < 8)
		return UNREADABLE;
	if (bpf_probe_read_kernel(h, have >= 24 ? 24 : have >= 16 ? 16 : 8, icmp))
		return UNREADABLE;
	type = h[0];
	if (e->content.family == 4 ? type != 8 && type != 0 : type != 128 && type != 129)
		return -1;
	if (h[1])
		return -1;
	e->is_reply = e->content.family == 4 ? type == 0 : type == 129;
	e->id = be16(h + 4);
	e->content.seq = be16(h + 6);
	e->content.payload = have >= 24 ? 16 : have >= 16 ? 8 : 0;
	e->content.len = len;
	/* Bytes that the message does not have are not part of it. */
	__builtin_memcpy(e->content.words, h + 8, 16);
	if (len < 24)
		e->content.words[1] = 0;
	if (len < 16)
		e->content.words[0] = 0;
	/* The checksum is ~(type + id + the rest): RFC 1071; NAT changes it with the id only. For
	 * ICMPv6 the addresses are in it too. */
	sum = (u16)~be16(h + 2);
	sum += (u16)~e->id;
	sum += (u16)~(type << 8);
	e->content.sum = fold(sum);
	return 0;
}

static __always_inline int read_ipv4(const u8 *ip, u32 have, struct echo *e)
{
	u8 h[20];
	u32 header, total, fragment;

	if (have < 28 || bpf_probe_read_kernel(h, 20, ip))
		return UNREADABLE;
	if (h[9] != ICMP)
		return -1;
	header = (h[0] & 0xf) * 4;
	total = be16(h + 2);
	fragment = be16(h + 6) & 0x3fff;
	if (fragment & 0x1fff)
		return -1;
	if (header < 20 || header + 8 > have || total < header + 8)
		return UNREADABLE;
	e->fragment = fragment != 0;
	e->content.family = 4;
	e->source[0] = *(u32 *)(h + 12);
	e->destination[0] = *(u32 *)(h + 16);
	return read_icmp(ip + header, have - header, total - header, e);
}

static __always_inline int read_ipv6(const u8 *ip, u32 have, struct echo *e)
{
	u8 h[40], x[8];
	u32 next, at = 40, total, i;

	if (have < 48 || bpf_probe_read_kernel(h, 40, ip))
		return UNREADABLE;
	next = h[6];
	total = 40 + be16(h + 4);
	for (i = 0; i < 3; i++) {
		if (next == ICMPV6)
			break;
		if (next != 0 && next != 43 && next != 60 && next != 44)
			return -1;
		if (at + 16 > have || bpf_probe_read_kernel(x, 8, ip + at))
			return UNREADABLE;
		if (next == 44) {	/* fragment header */
			if (be16(x + 2) & 0xfff8)
				return -1;
			e->fragment = be16(x + 2) & 1;
			at += 8;
		} else {
			at += 8 + x[1] * 8;
		}
		next = x[0];
	}
	if (next != ICMPV6)
		return UNKNOWN_HEADERS;
	if (at + 8 > have || total < at + 8)
		return UNREADABLE;
	e->content.family = 6;
	__builtin_memcpy(e->source, h + 8, 16);
	__builtin_memcpy(e->destination, h + 24, 16);
	return read_icmp(ip + at, have - at, total - at, e);
}

/* Read the echo in a packet whose IP header is at `ip`; 0 when there is one. */
static __always_inline int read_echo(const struct sk_buff *skb, const u8 *ip, struct echo *e)
{
	u16 protocol = skb->protocol;
	u32 linear = skb->len - skb->data_len, before = ip - skb->data;
	int status;

	__builtin_memset(e, 0, sizeof(*e));
	if (protocol == ETH_P_8021Q) {	/* the tag stands between Ethernet's header and this one */
		u8 tag[4];

		if (ip == skb->data) {
			if (bpf_probe_read_kernel(tag, 4, ip))
				return -1;
			ip += 4;
			before += 4;
			protocol = *(u16 *)(tag + 2);
		} else {
			u8 version;

			if (bpf_probe_read_kernel(&version, 1, ip))
				return -1;
			protocol = version >> 4 == 4 ? ETH_P_IP : ETH_P_IPV6;
		}
	}
	if (before > linear)
		return -1;
	if (protocol == ETH_P_IP)
		status = read_ipv4(ip, linear - before, e);
	else if (protocol == ETH_P_IPV6)
		status = read_ipv6(ip, linear - before, e);
	else
		return -1;
	if (status > 0)
		count(status);
	return status;
}

static __always_inline int same_content(const struct content *a, const struct content *b)
{
	return a->seq == b->seq && a->len == b->len && a->family == b->family &&
	       a->words[0] == b->words[0] && a->words[1] == b->words[1] &&
	       (a->family == 6 || a->sum == b->sum);
}

static __always_inline u32 passage_of(const struct sk_buff *skb)
{
	u32 address;

	/* The verifier takes the low half of a pointer, once moved, for a number; nothing else. */
	asm volatile("%0 = %1" : "=w"(address) : "w"((u32)(u64)skb));
	return address * 0x9E3779B1U >> 20;	/* a number below PASSAGES */
}

/* The echoes of one ping are neighbours: they are in nobody's way but another ping's. */
static __always_inline u32 place_of(const u64 *local, const u64 *remote, u16 id, u16 seq)
{
	u64 flow = (local[0] ^ local[1] ^ remote[0] * 31 ^ remote[1] * 31 ^ id) *
		   0x9E3779B97F4A7C15ULL;

	return ((u32)(flow >> 40) + seq) & (PENDING - 1);
}

static __always_inline void write_row(const struct row *row)
{
	u64 number = __sync_fetch_and_add(&memory.rows_written, 1);
	struct row *to = &memory.rows[number & (ROWS - 1)];

	to->number = 0;
	barrier();
	__builtin_memcpy(&to->queued_ns, &row->queued_ns, sizeof(*row) - sizeof(row->number));
	barrier();
	__sync_lock_test_and_set(&to->number, number + 1);
}

static __always_inline void enter(const struct sk_buff *skb, const struct device *d,
				  const struct echo *e, u64 now)
{
	struct passage *p = &memory.outbound[passage_of(skb)];

	count(ENTERED);
	if (!try_lock(&p->lock)) {
		count(BUSY);
		return;
	}
	if (p->skb && p->skb != (u64)skb && !p->place && now - p->queued_ns < RECENT_NS)
		count(OVERWRITTEN);
	p->skb = (u64)skb;
	p->place = 0;
	p->queued_ns = now;
	p->content = e->content;
	p->target[0] = e->destination[0];
	p->target[1] = e->destination[1];
	p->netns = d->netns;
	p->container = d->container;
	p->ifindex = d->ifindex;
	p->pid = bpf_get_current_pid_tgid() >> 32;
	p->id = e->id;
	p->fragment = e->fragment;
	unlock(&p->lock);
}

static __always_inline void await(struct passage *p, const struct sk_buff *skb,
				  const struct device *d, const struct echo *e, u64 now)
{
	u32 place = place_of(e->source, e->destination, e->id, e->content.seq);
	struct pending *w = &memory.pending[place];
	u8 flags = e->fragment ? FRAGMENTED : 0;

	if (!try_lock(&w->lock)) {
		count(BUSY);
		return;
	}
	if (memory.states[place] == SENT && w->taken != w->generation) {
		if (w->row.local[0] == e->source[0] && w->row.local[1] == e->source[1] &&
		    w->row.remote[0] == e->destination[0] &&
		    w->row.remote[1] == e->destination[1] && w->row.outer_id == e->id &&
		    w->row.seq == e->content.seq) {
			w->row.flags |= TWIN;
			flags |= TWIN;
		} else {
			count(OVERWRITTEN);
		}
		w->row.flags |= GIVEN_UP;
		write_row(&w->row);
	}
	w->generation += 1;
	memory.states[place] = SENT;
	w->content = e->content;
	w->row.queued_ns = p->queued_ns;
	w->row.outer_queued_ns = now;
	w->row.sent_ns = 0;
	w->row.outer_received_ns = 0;
	w->row.received_ns = 0;
	w->row.local[0] = e->source[0];
	w->row.local[1] = e->source[1];
	w->row.remote[0] = e->destination[0];
	w->row.remote[1] = e->destination[1];
	w->row.target[0] = p->target[0];
	w->row.target[1] = p->target[1];
	w->row.stamp = e->content.words[0];
	w->row.request_skb = (u64)skb;
	w->row.reply_skb = 0;
	w->row.netns = p->netns;
	w->row.container = p->container;
	w->row.inner_ifindex = p->ifindex;
	w->row.outer_ifindex = d->ifindex;
	w->row.outer_in_ifindex = 0;
	w->row.pid = p->pid;
	w->row.id = p->id;
	w->row.outer_id = e->id;
	w->row.seq = e->content.seq;
	w->row.len = e->content.len;
	w->row.family = e->content.family;
	w->row.flags = flags;
	p->place = place + 1;
	p->generation = w->generation;
	unlock(&w->lock);
}

static __always_inline void leave(const struct sk_buff *skb, const struct device *d,
				  const struct echo *e, u64 now)
{
	struct passage *p = &memory.outbound[passage_of(skb)];

	if (p->skb != (u64)skb)
		return;		/* it does not come from a container that is watched */
	if (!try_lock(&p->lock)) {
		count(BUSY);
		return;
	}
	if (p->skb == (u64)skb && !p->place) {
		if (same_content(&p->content, &e->content)) {
			await(p, skb, d, e, now);
			if (!(d->roles & OUTER_SENT))
				p->skb = 0;
		} else {
			count(OTHER_CONTENT);
			p->skb = 0;
		}
	}
	unlock(&p->lock);
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_queue, const struct sk_buff *skb)
{
	const struct device *d = find_device(skb->dev);
	struct echo e;
	u64 now;

	if (!d || !(d->roles & (INNER_QUEUED | OUTER_QUEUED)))
		return 0;
	if ((d->roles & OUTER_QUEUED) && memory.outbound[passage_of(skb)].skb != (u64)skb)
		return 0;
	now = bpf_ktime_get_ns();
	if (read_echo(skb, skb->head + skb->network_header, &e) || e.is_reply)
		return 0;
	if (d->roles & INNER_QUEUED)
		enter(skb, d, &e, now);
	else
		leave(skb, d, &e, now);
	return 0;
}

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(on_xmit, const struct sk_buff *skb, const struct net_device *dev)
{
	struct passage *p = &memory.outbound[passage_of(skb)];
	const struct device *d;
	struct pending *w;
	u64 now;

	if (p->skb != (u64)skb || !p->place)
		return 0;
	d = find_device(dev);
	if (!d || !(d->roles & OUTER_SENT))
		return 0;
	now = bpf_ktime_get_ns();
	if (!try_lock(&p->lock)) {
		count(BUSY);
		return 0;
	}
	if (p->skb == (u64)skb && p->place) {
		w = &memory.pending[(p->place - 1) & (PENDING - 1)];
		if (try_lock(&w->lock)) {
			if (w->generation == p->generation && w->row.outer_ifindex == d->ifindex)
				w->row.sent_ns = now;
			unlock(&w->lock);
		} else {
			count(BUSY);
		}
		p->skb = 0;
	}
	unlock(&p->lock);
	return 0;
}

static __always_inline void come(const struct sk_buff *skb, const struct device *d,
				 const struct echo *e, u64 now)
{
	u32 place = place_of(e->destination, e->source, e->id, e->content.seq);
	struct pending *w = &memory.pending[place];
	struct passage *p;
	u64 generation = 0;	/* stays: a reply that is known, and not followed */

	if (memory.states[place] == FREE)
		return;		/* nobody waits for it */
	if (!try_lock(&w->lock)) {
		count(BUSY);
		return;
	}
	if (w->row.outer_id != e->id || w->row.seq != e->content.seq ||
	    w->row.local[0] != e->destination[0] || w->row.local[1] != e->destination[1] ||
	    w->row.remote[0] != e->source[0] || w->row.remote[1] != e->source[1]) {
		unlock(&w->lock);
		return;
	}
	if (w->row.reply_skb == (u64)skb && (w->row.flags & ANSWERED) &&
	    now - w->row.outer_received_ns < RECENT_NS) {
		unlock(&w->lock);	/* the second tracepoint of the same packet */
		return;
	}
	if (w->taken == w->generation) {
		count(LATE);
	} else if (memory.states[place] == DONE) {
		count(REPEATED_LATER);
	} else if (w->row.flags & ANSWERED) {
		w->row.flags |= REPEATED;
	} else {
		w->row.flags |= ANSWERED | (e->fragment ? FRAGMENTED : 0);
		if (!same_content(&w->content, &e->content))
			w->row.flags |= ALTERED;
		w->row.outer_received_ns = now;
		w->row.reply_skb = (u64)skb;
		w->row.outer_in_ifindex = d->ifindex;
		generation = w->generation;
	}
	unlock(&w->lock);

	p = &memory.inbound[passage_of(skb)];
	if (!try_lock(&p->lock)) {
		count(BUSY);
		return;
	}
	if (p->skb && p->skb != (u64)skb && now - p->queued_ns < RECENT_NS)
		count(OVERWRITTEN);
	p->skb = (u64)skb;
	p->place = generation ? place + 1 : 0;
	p->generation = generation;
	p->queued_ns = now;
	p->content = e->content;
	unlock(&p->lock);
}

static __always_inline void arrive(const struct sk_buff *skb, const struct device *d,
				   const struct echo *e, u64 now, int seen_before)
{
	struct passage *p = &memory.inbound[passage_of(skb)];
	struct pending *w;
	u32 place;

	if (p->skb != (u64)skb) {
		if (!seen_before)
			count(NO_REQUEST);
		return;
	}
	if (!try_lock(&p->lock)) {
		count(BUSY);
		return;
	}
	if (p->skb != (u64)skb) {
		unlock(&p->lock);
		return;
	}
	p->skb = 0;
	if (!same_content(&p->content, &e->content)) {
		count(OTHER_CONTENT);
		unlock(&p->lock);
		return;
	}
	if (!p->place) {
		unlock(&p->lock);
		return;
	}
	place = (p->place - 1) & (PENDING - 1);
	w = &memory.pending[place];
	if (try_lock(&w->lock)) {
		if (w->generation == p->generation && w->taken != w->generation &&
		    memory.states[place] == SENT &&
		    w->row.netns == d->netns && w->row.id == e->id) {
			w->row.flags |= RECEIVED;
			w->row.received_ns = now;
			memory.states[place] = DONE;
			write_row(&w->row);
		}
		unlock(&w->lock);
	} else {
		count(BUSY);
	}
	unlock(&p->lock);
}

static __always_inline int receive(const struct sk_buff *skb, u32 outer, u32 inner)
{
	const struct device *d = find_device(skb->dev);
	struct echo e;
	u64 now;

	if (!d || !(d->roles & (outer | inner)))
		return 0;
	now = bpf_ktime_get_ns();
	if (read_echo(skb, skb->data, &e) || !e.is_reply)
		return 0;
	if (d->roles & outer)
		come(skb, d, &e, now);
	else
		/* netif_rx saw the same packet before netif_receive_skb does */
		arrive(skb, d, &e, now, (d->roles & INNER_RX) && inner == INNER_RECEIVE);
	return 0;
}

SEC("tp_btf/netif_rx")
int BPF_PROG(on_rx, const struct sk_buff *skb)
{
	return receive(skb, OUTER_RX, INNER_RX);
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(on_receive, const struct sk_buff *skb)
{
	return receive(skb, OUTER_RECEIVE, INNER_RECEIVE);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";

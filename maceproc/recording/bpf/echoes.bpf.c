// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Write down where ICMP echoes are: a point for every device that is watched.
 *
 *     container's device         outer device                          remote
 *          queued ---------------- outer_queued -- sent ------------------.
 *          received -------------- outer_received ------------------------'
 *
 * A point holds the time, the address of the sk_buff, and all that the packet carries to be told
 * from others. Nothing is looked up and nothing is decided here: a packet whose caches are cold pays
 * for every line of memory and code that is touched. Which points belong to one echo is found out
 * later (maceproc/pairing.py).
 *
 * Points are in rings that user space maps into its memory: no helper is called for a packet but the
 * clock and the copy of its header, and nobody is woken. A ring has a place for every writer: the
 * place is taken first, by an atomic addition, then written, its time last.
 *
 * No vmlinux.h: only the fields that are read are declared, and CO-RE finds where they are.
 */
typedef unsigned char __u8, u8;
typedef unsigned short __u16, u16, __be16;
typedef unsigned int __u32, u32, __be32, __wsum;
typedef unsigned long long __u64, u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32, s32;
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
struct sock_common {
	possible_net_t skc_net;
} READ_FROM_BTF;
struct sock {
	struct sock_common __sk_common;
} READ_FROM_BTF;
struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned int len, data_len;
	u16 protocol, network_header;
	unsigned char *head, *data;
} READ_FROM_BTF;

/* Where a packet is: what a point tells. */
enum { QUEUED = 1, OUTER_QUEUED, SENT, OUTER_RECEIVED, RECEIVED };

/* What a device is to us: bits, by the tracepoint that tells it. */
enum {
	INNER_QUEUED = 1 << 0,
	OUTER_QUEUED_ROLE = 1 << 1,
	OUTER_SENT = 1 << 2,
	OUTER_RX = 1 << 3,		/* outer_received, by netif_rx */
	OUTER_RECEIVE = 1 << 4,		/* outer_received, by netif_receive_skb */
	INNER_RX = 1 << 5,		/* received, by netif_rx */
	INNER_RECEIVE = 1 << 6,		/* received, by netif_receive_skb */
};

struct device {
	u32 netns;	/* inode number */
	u32 ifindex;
	u32 container;	/* the number that user space gave it */
	u16 roles;
	u16 next;	/* the next one whose ifindex has the same low byte; 0: none */
};

#define DEVICES 4096
#define CHAIN 32	/* devices that are looked at for a packet, at most */

enum {	/* kinds of packets: bits of a point */
	REPLY = 1 << 0,
	FRAGMENT = 1 << 1,
	LOCAL = 1 << 2,		/* a socket of the device's own namespace sent it */
};

struct point {
	u64 time_ns;		/* 0 while it is written */
	u64 skb;
	u64 words[2];		/* the payload's first 16 bytes; ping keeps its send stamp there */
	u64 source[2];
	u64 destination[2];
	u32 netns;
	u32 ifindex;
	u32 container;
	u32 pid;
	u16 id;
	u16 seq;
	u16 sum;	/* of all bytes but type and identifier, as the ICMP checksum tells it */
	u16 len;	/* of the ICMP message [bytes] */
	u8 point;
	u8 kind;
	u8 family;	/* 4 or 6 */
	u8 padding[5];
};

#define POINTS 262144	/* of all rings; a power of two */
#define RINGS 8

struct ring {
	u64 taken;		/* places that were taken, ever */
	u64 unreadable;		/* headers that are not in the linear part, or cut */
	u64 unknown_headers;	/* IPv6 extension headers that are not understood */
	u64 padding[5];
};

/* What user space maps, in one piece: memory.py declares the same. */
struct {
	u32 ring_mask;		/* CPUs have rings by their low bits */
	u32 point_mask;		/* of the places in one ring */
	u32 padding[14];
	struct ring rings[RINGS];
	u16 chains[256];	/* in `devices`, by the ifindex's low byte: most packets end here */
	struct device devices[DEVICES];	/* from 1; few of them are in this page */
	struct point points[POINTS] __attribute__((aligned(64)));
} memory;

/* Keep the compiler from computing the address of each member anew from the start of `memory`. */
#define KEEP_IN_REGISTER(pointer) asm volatile("" : "+r"(pointer))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

static __always_inline const struct device *find_device(const struct net_device *dev)
{
	u32 ifindex = dev->ifindex, at = memory.chains[ifindex & 0xff], netns, i;

	if (likely(!at))
		return 0;
	netns = dev->nd_net.net->ns.inum;
#pragma clang loop unroll(disable)
	for (i = 0; i < CHAIN && at; i++) {
		const struct device *d = &memory.devices[at & (DEVICES - 1)];

		KEEP_IN_REGISTER(d);
		if (likely(d->ifindex == ifindex && d->netns == netns))
			return d;
		at = d->next;
	}
	return 0;
}

#define ETH_P_IP 0x0008		/* as it stands in memory on little endian */
#define ETH_P_IPV6 0xdd86
#define ETH_P_8021Q 0x0081
#define ICMP 1
#define ICMPV6 58
#define IPV4_HEADER 20
#define ICMP_BYTES 24		/* the ICMP header and 16 bytes of payload */
#define ECHO 0
#define NO_ECHO -1
#define UNREADABLE -2
#define UNKNOWN_HEADERS -3
#define NOT_PLAIN -4

/* What is read of a packet. */
struct headers {
	u32 padding;		/* puts the payload at a multiple of 8 */
	u8 ipv4[IPV4_HEADER] __attribute__((aligned(4)));
	u8 icmp[ICMP_BYTES] __attribute__((aligned(8)));
	u8 ipv6[40] __attribute__((aligned(8)));
	u32 len;		/* of the ICMP message [bytes], by the IP header */
	u8 family;
	u8 fragment;
};

static __always_inline u16 be16(const u8 *p)	/* at an even place on the stack */
{
	return __builtin_bswap16(*(const u16 *)p);
}

static __always_inline u16 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff ? 0 : sum;	/* both are zero, in one's complement */
}

static __always_inline int read_bytes(u8 *to, u32 have, const u8 *from, u32 most)
{
	asm volatile("" : "+r"(have));	/* the verifier is to see the bound below */
	if (have > most)
		have = most;
	return bpf_probe_read_kernel(to, have, from);
}

/* Read the headers of a packet that is like most: IPv4 without options or VLAN tag, and whole. */
static __always_inline int read_plain(const struct sk_buff *skb, const u8 *ip, struct headers *h)
{
	u32 linear = skb->len - skb->data_len, before = ip - skb->data;

	if (unlikely(skb->protocol != ETH_P_IP || before > linear ||
		     linear - before < IPV4_HEADER + ICMP_BYTES ||
		     bpf_probe_read_kernel(h->ipv4, IPV4_HEADER + ICMP_BYTES, ip) ||
		     h->ipv4[0] != 0x45 || be16(h->ipv4 + 6) & 0x3fff))
		return NOT_PLAIN;
	if (h->ipv4[9] != ICMP)
		return NO_ECHO;
	h->len = be16(h->ipv4 + 2) - IPV4_HEADER;
	h->family = 4;
	return (s32)h->len < 8 ? UNREADABLE : ECHO;
}

/* Return where the ICMP header is, from the IP header on; negative: there is none. */
static __always_inline int find_icmp_v4(struct headers *h)
{
	u32 header = (h->ipv4[0] & 0xf) * 4, fragment = be16(h->ipv4 + 6) & 0x3fff;

	if (h->ipv4[9] != ICMP || fragment & 0x1fff)
		return NO_ECHO;
	h->fragment = fragment != 0;
	h->len = be16(h->ipv4 + 2);
	return header < IPV4_HEADER ? UNREADABLE : header;
}

static __always_inline int find_icmp_v6(struct headers *h, const u8 *ip, u32 have)
{
	u32 next = h->ipv6[6], at = 40, i;
	u8 x[8] __attribute__((aligned(8)));

	h->len = 40 + be16(h->ipv6 + 4);
#pragma clang loop unroll(disable)
	for (i = 0; i < 3; i++) {
		if (next == ICMPV6)
			return at;
		if (next != 0 && next != 43 && next != 60 && next != 44)
			return NO_ECHO;
		if (at + 16 > have || bpf_probe_read_kernel(x, 8, ip + at))
			return UNREADABLE;
		if (next == 44) {	/* fragment header */
			if (be16(x + 2) & 0xfff8)
				return NO_ECHO;
			h->fragment = be16(x + 2) & 1;
			at += 8;
		} else {
			at += 8 + x[1] * 8;
		}
		next = x[0];
	}
	return next == ICMPV6 ? at : UNKNOWN_HEADERS;
}

/*
 * Read the headers of any packet. It is a function of its own, so that what runs for most packets is
 * short and lies together: a CPU that slept has to fetch every line of code.
 */
static __noinline int read_any(const struct sk_buff *skb, const u8 *ip, struct headers *h)
{
	u16 protocol = skb->protocol;
	u32 linear = skb->len - skb->data_len, before = ip - skb->data, have;
	int at;

	__builtin_memset(h, 0, sizeof(*h));
	if (protocol == ETH_P_8021Q && ip == skb->data) {
		u8 tag[4];	/* it stands between Ethernet's header and this one */

		if (bpf_probe_read_kernel(tag, 4, ip))
			return NO_ECHO;
		ip += 4;
		before += 4;
		protocol = *(u16 *)(tag + 2);
	}
	if (protocol != ETH_P_IP && protocol != ETH_P_IPV6 && protocol != ETH_P_8021Q)
		return NO_ECHO;
	if (before > linear)
		return NO_ECHO;
	have = linear - before;
	if (read_bytes(h->ipv6, have, ip, sizeof(h->ipv6)))
		return UNREADABLE;
	h->family = h->ipv6[0] >> 4;
	if (h->family == 4) {
		__builtin_memcpy(h->ipv4, h->ipv6, IPV4_HEADER);
		at = find_icmp_v4(h);
	} else if (h->family == 6) {
		at = find_icmp_v6(h, ip, have);
	} else {
		return NO_ECHO;
	}
	if (at < 0)
		return at;
	if (at + 8 > have || h->len < at + 8)
		return UNREADABLE;
	h->len -= at;
	return read_bytes(h->icmp, have - at, ip + at, ICMP_BYTES) ? UNREADABLE : ECHO;
}

static __always_inline void fill(struct point *p, const struct headers *h)
{
	const u8 *icmp = h->icmp;
	u32 sum;

	if (likely(h->family == 4)) {
		p->source[0] = *(u32 *)(h->ipv4 + 12);
		p->source[1] = 0;
		p->destination[0] = *(u32 *)(h->ipv4 + 16);
		p->destination[1] = 0;
	} else {
		__builtin_memcpy(p->source, h->ipv6 + 8, 16);
		__builtin_memcpy(p->destination, h->ipv6 + 24, 16);
	}
	/* Bytes that the message does not have are not part of it. */
	__builtin_memcpy(p->words, icmp + 8, 16);
	if (unlikely(h->len < ICMP_BYTES)) {
		p->words[1] = 0;
		if (h->len < 16)
			p->words[0] = 0;
	}
	p->id = be16(icmp + 4);
	p->seq = be16(icmp + 6);
	p->len = h->len;
	/* The checksum is ~(type + id + the rest): RFC 1071; NAT changes it with the id only. For
	 * ICMPv6 the addresses are in it too. */
	sum = (u16)~be16(icmp + 2);
	sum += (u16)~p->id;
	sum += (u16)~(icmp[0] << 8);
	p->sum = fold(sum);
	p->family = h->family;
}

static __always_inline struct ring *my_ring(u32 *number)
{
	*number = bpf_get_smp_processor_id() & memory.ring_mask & (RINGS - 1);
	return &memory.rings[*number];
}

static __noinline int unseen(int why)
{
	u32 number;
	struct ring *ring = my_ring(&number);

	if (why == UNREADABLE)
		__sync_fetch_and_add(&ring->unreadable, 1);
	else if (why == UNKNOWN_HEADERS)
		__sync_fetch_and_add(&ring->unknown_headers, 1);
	return 0;
}

/* Write a point if the packet, whose IP header is at `ip`, is an echo of the wanted direction. */
static __always_inline int write_point(const struct sk_buff *skb, const u8 *ip,
				       const struct device *d, u32 point, u32 reply)
{
	u64 now = bpf_ktime_get_ns();
	struct headers h = {};
	struct ring *ring;
	struct point *p;
	u32 number, kind, type;
	int found;

	found = read_plain(skb, ip, &h);
	if (unlikely(found == NOT_PLAIN))
		found = read_any(skb, ip, &h);
	if (unlikely(found != ECHO))
		return found == NO_ECHO ? 0 : unseen(found);
	type = h.family == 4 ? (reply ? 0 : 8) : (reply ? 129 : 128);
	if (unlikely(h.icmp[0] != type || h.icmp[1]))
		return 0;
	kind = (reply ? REPLY : 0) | (h.fragment ? FRAGMENT : 0);
	if (!reply) {
		const struct sock *sk = skb->sk;

		if (sk && sk->__sk_common.skc_net.net == skb->dev->nd_net.net)
			kind |= LOCAL;
	}
	ring = my_ring(&number);
	number = number * (memory.point_mask + 1) +
		 (__sync_fetch_and_add(&ring->taken, 1) & memory.point_mask);
	p = &memory.points[number & (POINTS - 1)];
	KEEP_IN_REGISTER(p);
	p->time_ns = 0;
	barrier();
	p->skb = (u64)skb;
	fill(p, &h);
	p->netns = d->netns;
	p->ifindex = d->ifindex;
	p->container = d->container;
	p->pid = reply || point == SENT ? 0 : bpf_get_current_pid_tgid() >> 32;
	p->point = point;
	p->kind = kind;
	barrier();
	p->time_ns = now;
	return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_queue, const struct sk_buff *skb)
{
	const struct device *d = find_device(skb->dev);

	if (!d || !(d->roles & (INNER_QUEUED | OUTER_QUEUED_ROLE)))
		return 0;
	return write_point(skb, skb->head + skb->network_header, d,
			   d->roles & INNER_QUEUED ? QUEUED : OUTER_QUEUED, 0);
}

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(on_xmit, const struct sk_buff *skb, const struct net_device *dev)
{
	const struct device *d = find_device(dev);

	if (!d || !(d->roles & OUTER_SENT))
		return 0;
	return write_point(skb, skb->head + skb->network_header, d, SENT, 0);
}

static __always_inline int receive(const struct sk_buff *skb, u32 outer, u32 inner)
{
	const struct device *d = find_device(skb->dev);

	if (!d || !(d->roles & (outer | inner)))
		return 0;
	return write_point(skb, skb->data, d, d->roles & outer ? OUTER_RECEIVED : RECEIVED, 1);
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

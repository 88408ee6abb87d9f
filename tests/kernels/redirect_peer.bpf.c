// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What eBPF networks such as Cilium do with a container's packets, at its smallest: a packet for the
 * container is moved from the card into the container's device, past the host's bridge and the host's
 * end of the veth pair; a packet of the container goes from that end to the card.
 *
 * The device numbers and the container's Ethernet address are those of the bench's scenario.
 */
struct __sk_buff {
	unsigned int len, pkt_type, mark, queue_mapping, protocol;
};

enum { CARD = 70, HOST_END = 71 };
enum { IPV4 = 0x0008 }; /* ETH_P_IP, in network byte order */
enum { TC_ACT_OK = 0 };
enum { DESTINATION = 30 }; /* of the IPv4 header, behind that of Ethernet */

/* include/uapi/linux/bpf.h, v5.10 */
static long (*const load_bytes)(const void *, unsigned int, void *, unsigned int) = (void *)26;
static long (*const store_bytes)(void *, unsigned int, const void *, unsigned int,
				 unsigned long long) = (void *)9;
static long (*const redirect_neigh)(unsigned int, void *, int, unsigned long long) = (void *)152;
static long (*const redirect_peer)(unsigned int, unsigned long long) = (void *)155;

__attribute__((section("tc_inbound"), used)) int inbound(struct __sk_buff *skb)
{
	const unsigned char ethernet[6] = {2, 0, 0, 0, 0, 2};
	unsigned char to[4] = {};

	if (skb->protocol != IPV4 || load_bytes(skb, DESTINATION, to, sizeof(to)))
		return TC_ACT_OK;
	if (to[0] != 10 || to[1] != 91 || to[2] != 0 || to[3] != 2)
		return TC_ACT_OK;
	if (store_bytes(skb, 0, ethernet, sizeof(ethernet), 0))
		return TC_ACT_OK;
	return redirect_peer(HOST_END, 0);
}

__attribute__((section("tc_outbound"), used)) int outbound(struct __sk_buff *skb)
{
	unsigned char to[4] = {};

	if (skb->protocol != IPV4 || load_bytes(skb, DESTINATION, to, sizeof(to)))
		return TC_ACT_OK;
	if (to[0] != 10 || to[1] != 92)
		return TC_ACT_OK;
	return redirect_neigh(CARD, 0, 0, 0);
}

char licensed[] __attribute__((section("license"), used)) = "Dual MIT/GPL";

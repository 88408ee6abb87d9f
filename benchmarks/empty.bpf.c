// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Programs that do nothing, on the hooks of echoes.bpf.c: what the hooks alone cost. */
typedef unsigned char __u8;
typedef unsigned short __u16, __be16, __sum16;
typedef unsigned int __u32, __be32, __wsum;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2 };
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

__u64 memory;

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_queue, void *skb) { return 0; }

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(on_xmit, void *skb, void *dev) { return 0; }

SEC("tp_btf/netif_rx")
int BPF_PROG(on_rx, void *skb) { return 0; }

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(on_receive, void *skb) { return 0; }

char LICENSE[] SEC("license") = "Dual MIT/GPL";

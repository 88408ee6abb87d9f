// SPDX-License-Identifier: MIT OR GPL-2.0
/* Passes every packet on, as an XDP program does that only counts or filters. */
struct xdp_md;

enum { XDP_PASS = 2 }; /* include/uapi/linux/bpf.h, v5.10 */

__attribute__((section("xdp"), used)) int pass(struct xdp_md *context)
{
	return XDP_PASS;
}

char licensed[] __attribute__((section("license"), used)) = "Dual MIT/GPL";

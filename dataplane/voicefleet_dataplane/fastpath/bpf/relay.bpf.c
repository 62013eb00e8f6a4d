/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The relay's fast path: media of flows that the relay process has bound, forwarded without leaving the kernel.
 *
 *     client C                         relay node R                                     transceiver T
 *
 *      C:c → R:public  ──── ingress ──▶ rule (C:c → R:public)   R:flow → T:t   ──────▶  looked up by its source R:flow
 *      C:c ← R:public  ◀──────────────  rule (T:t → R:flow)  ◀──── ingress ────  bare,  T:t → R:flow
 *
 *     The transceiver on the relay's own node (T is R): only the relay's end changes, and no port is needed.
 *
 *      C:c → R:public  ──── ingress ──▶ rule (C:c → R:public)   C:c → R:t, and on up the stack to the transceiver's socket
 *      C:c ← R:public  ◀─── egress ───  rule (R:t → C:c)      ◀─────────────────  bare, R:t → C:c
 *
 * It repeats decisions and takes none. A rule exists for a flow that an authenticated check bound (core/relay/relay.py), and
 * only media (first byte 128 … 191) uses it: STUN and DTLS, which decide about flows, always go up to the process. So
 * does everything that has no rule, or that cannot be sent on: **a packet is never dropped here**, it is forwarded or
 * passed up untouched. "Untouched" needs care: a packet is rewritten only after its route is known, since one that was
 * rewritten first and then finds no route would go up with another flow's addresses on it.
 *
 * Packets never grow (no header, no encapsulation): what fitted the client's path fits the inner network, and XDP needs no
 * headroom that a driver may not have.
 *
 * The lease: rules stand for a process that verifies checks. When that process is gone and does not come back, no check
 * is answered and clients' consent runs out (RFC 7675: 30 s); the lease then ends too, and the program is as good as absent.
 *
 * Owns: the three programs, and in which order they look, decide, rewrite and send. Does not own: reading (parse.h), which
 * rule and which way (route.h), writing (rewrite.h).
 *
 * Rights: CAP_BPF and CAP_NET_ADMIN load it. What would need CAP_PERFMON as well is not done: no pointer is subtracted from
 * another, and none moves by anything but a constant.
 * Kernels: 5.11 for TC (coarse clock; bpf_redirect_neigh is of 5.10), 5.18 for XDP (bpf_xdp_get_buff_len).
 */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include "maps.h"
#include "parse.h"
#include "rewrite.h"
#include "route.h"

static __always_inline struct control *this_relay(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

/* ---- TC: clsact, or a TCX link */

static __always_inline int readable(struct __sk_buff *skb)
{
	return (void *)(long)skb->data + HEADERS_V6 + 1 <= (void *)(long)skb->data_end;
}

static __always_inline int parse_skb(struct __sk_buff *skb, struct packet *packet)
{
	if (skb->vlan_present) /* the tag stands beside the packet, the frame looks plain */
		return 0;
	/* Headers may lie in a fragment of the buffer. Short packets never become readable, and need not. */
	if (!readable(skb) && skb->len > HEADERS_V6)
		bpf_skb_pull_data(skb, HEADERS_V6 + 1);
	return parse((void *)(long)skb->data, (void *)(long)skb->data_end, packet) && IP_AT + packet->ip_bytes <= skb->len;
}

/* Two calls, since the pseudo header is of the addresses alone: on a packet whose checksum a network card will finish
 * (CHECKSUM_PARTIAL, and every packet between containers is one) the field holds only the sum over those. */
static __always_inline int rewrite_skb(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to,
				       int takes_hop)
{
	__u32 difference = addresses_differ(&packet->seen, to);
	__u32 checksum_at = (packet->is_v6 ? UDP_AT_V6 : UDP_AT_V4) + 6;

	if (!write_ends((void *)(long)skb->data, (void *)(long)skb->data_end, packet, to, difference, takes_hop,
			CHECKSUM_LEAVE))
		return 0;
	bpf_l4_csum_replace(skb, checksum_at, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	bpf_l4_csum_replace(skb, checksum_at, 0, ports_differ(&packet->seen, to), BPF_F_MARK_MANGLED_0);
	return 1;
}

SEC("tc")
int relay_ingress(struct __sk_buff *skb)
{
	struct control *mine = this_relay();
	struct bpf_redir_neigh next = {};
	struct bpf_fib_lookup route;
	struct packet packet;
	enum counter why;
	struct rule *rule;

	/* A link in promiscuous mode sees its neighbours' packets, too. */
	if (!mine || skb->pkt_type != PACKET_HOST || !parse_skb(skb, &packet))
		return TC_ACT_UNSPEC;
	rule = find_rule(mine, &packet, INGRESS, 1);
	if (!rule)
		return TC_ACT_UNSPEC;
	if (rule->how == HOW_DELIVER) {
		if (rewrite_skb(skb, &packet, &rule->to, 0))
			note(rule, &packet, COUNT_DELIVERED);
		return TC_ACT_UNSPEC;
	}
	if (find_route(skb, &route, &packet, &rule->to, skb->ifindex, &why) == NO_WAY) {
		count(why);
		return TC_ACT_UNSPEC;
	}
	if (!rewrite_skb(skb, &packet, &rule->to, 1))
		return TC_ACT_UNSPEC;
	note(rule, &packet, COUNT_FORWARDED);
	/* The kernel resolves the neighbour; the look-up above left the next hop where the destination was. */
	next.nh_family = route.family;
	__builtin_memcpy(next.ipv6_nh, route.ipv6_dst, 16);
	return bpf_redirect_neigh(route.ifindex, &next, sizeof(next), 0);
}

SEC("tc")
int relay_egress(struct __sk_buff *skb)
{
	struct control *mine = this_relay();
	struct packet packet;
	struct rule *rule;

	if (!mine || !mine->returns || !parse_skb(skb, &packet))
		return TC_ACT_UNSPEC;
	rule = find_rule(mine, &packet, EGRESS, 1);
	if (rule && rewrite_skb(skb, &packet, &rule->to, 0))
		note(rule, &packet, COUNT_RETURNED);
	return TC_ACT_UNSPEC;
}

/* ---- XDP: before there is a socket buffer; TC behind it takes what it passes. What a node sends (HOW_RETURN) stays with
 * relay_egress. It cannot tell a neighbour's frame on a promiscuous link from our own; the address in the rule has to do. */

SEC("xdp")
int relay_xdp(struct xdp_md *frame)
{
	void *data = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
	struct bpf_fib_lookup route = {}; /* the verifier does not see that it is read only where it was filled */
	struct control *mine = this_relay();
	struct packet packet;
	enum counter why;
	struct rule *rule;
	int alone, forwards;
	enum checksum checksum;
	__u32 difference;

	if (!mine || mine->xdp == XDP_OFF || !parse(data, end, &packet) ||
	    IP_AT + packet.ip_bytes > bpf_xdp_get_buff_len(frame))
		return XDP_PASS;
	alone = mine->xdp == XDP_ALONE;
	rule = find_rule(mine, &packet, INGRESS, alone);
	if (!rule)
		return XDP_PASS;
	forwards = rule->how == HOW_FORWARD;
	if (forwards &&
	    find_route(frame, &route, &packet, &rule->to, frame->ingress_ifindex, &why) != WAY_TO_ADDRESS) {
		if (alone)
			count(why);
		return XDP_PASS;
	}
	/* TC knows for sure. Without TC this is generic XDP, where a socket buffer is behind the frame and has it finished. */
	checksum = kind_of_checksum(&packet);
	if (checksum == CHECKSUM_PSEUDO && !alone)
		return XDP_PASS;
	difference = addresses_differ(&packet.seen, &rule->to);
	if (!write_ends(data, end, &packet, &rule->to, difference, forwards, checksum))
		return XDP_PASS;
	note(rule, &packet, forwards ? COUNT_FORWARDED : COUNT_DELIVERED);
	if (!forwards)
		return XDP_PASS;
	__builtin_memcpy(data, route.dmac, 6);
	__builtin_memcpy(data + 6, route.smac, 6);
	return route.ifindex == frame->ingress_ifindex ? XDP_TX : bpf_redirect(route.ifindex, 0);
}

char terms[] SEC("license") = "GPL"; /* the route look-up is for programs that may be taken under it */

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
 * Rights: CAP_BPF and CAP_NET_ADMIN load it. What would need CAP_PERFMON as well is not done: no pointer is subtracted from
 * another, and none moves by anything but a constant.
 * Kernels: 5.11 for TC (coarse clock; bpf_redirect_neigh is of 5.10), 5.18 for XDP (bpf_xdp_get_buff_len).
 */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include "maps.h"
#include "parse.h"

#define AF_INET 2
#define AF_INET6 10

enum hook { INGRESS, EGRESS };

static __always_inline struct control *this_relay(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

/* ---- which rule, if any */

/* Whether the packet could have a rule at this hook: most packets of a node are not the relay's, and two comparisons tell.
 * At egress it is the other way round: what the relay sends by itself comes by, and has none. */
static __always_inline int may_be_ours(const struct control *mine, const struct packet *packet, enum hook hook)
{
	__u16 port = bpf_ntohs(packet->seen.destination_port);

	if (hook == EGRESS)
		return packet->seen.source_port != mine->public_port;
	return packet->seen.destination_port == mine->public_port || (port >= mine->flow_first && port <= mine->flow_last);
}

/* The rule that has the packet leave; or none, and then the packet is counted if it was for the relay (`counts`: unless
 * another hook will see it, and count it). */
static __always_inline struct rule *find_rule(const struct control *mine, const struct packet *packet, enum hook hook,
					      int counts)
{
	struct rule *rule;
	int to_public;

	if (!may_be_ours(mine, packet, hook))
		return 0;
	to_public = hook == INGRESS && packet->seen.destination_port == mine->public_port;
	if (!is_media(packet)) {
		if (to_public && counts)
			count(COUNT_UP_NOT_MEDIA);
		return 0;
	}
	rule = bpf_map_lookup_elem(&rules, &packet->seen);
	if (!rule || (rule->how == HOW_RETURN) != (hook == EGRESS)) {
		if (to_public && counts)
			count(COUNT_UP_NO_RULE);
		return 0;
	}
	if (bpf_ktime_get_coarse_ns() > mine->lease_ns) {
		if (counts)
			count(COUNT_UP_NO_LEASE);
		return 0;
	}
	return rule;
}

/* After every look-up that can fail, before the packet goes. */
static __always_inline void note(struct rule *rule, const struct packet *packet, enum counter became)
{
	count(became);
	__sync_fetch_and_add(&rule->packets, 1); /* a flow may change its receive queue, and so its CPU */
	__sync_fetch_and_add(&rule->bytes, packet->payload_bytes);
	rule->last_ns = bpf_ktime_get_coarse_ns();
}

/* ---- where it goes: the kernel's own routes, as for any packet that this node forwards */

enum way {
	NO_WAY = 0,            /* the packet goes up, and find_route says why */
	WAY_TO_NEIGHBOUR = 1,  /* the next hop's link address is not known: for TC, which has the kernel find it out */
	WAY_TO_ADDRESS = 2,
};

static __always_inline enum way find_route(void *context, struct bpf_fib_lookup *route, const struct packet *packet,
				      const struct tuple *to, __u32 ifindex, enum counter *why)
{
	int found;

	if (packet->hops <= 1) {
		*why = COUNT_UP_TTL;
		return NO_WAY;
	}
	__builtin_memset(route, 0, sizeof(*route));
	route->l4_protocol = IPPROTO_UDP;
	route->sport = to->source_port;
	route->dport = to->destination_port;
	route->tot_len = packet->ip_bytes;
	route->ifindex = ifindex;
	if (packet->is_v6) {
		route->family = AF_INET6;
		__builtin_memcpy(route->ipv6_src, to->source, 16);
		__builtin_memcpy(route->ipv6_dst, to->destination, 16);
	} else {
		route->family = AF_INET;
		route->ipv4_src = to->source[3];
		route->ipv4_dst = to->destination[3];
	}
	found = bpf_fib_lookup(context, route, sizeof(*route), 0);
	if (found == BPF_FIB_LKUP_RET_SUCCESS)
		return WAY_TO_ADDRESS;
	*why = found == BPF_FIB_LKUP_RET_FRAG_NEEDED ? COUNT_UP_TOO_BIG : COUNT_UP_NO_ROUTE;
	return found == BPF_FIB_LKUP_RET_NO_NEIGH ? WAY_TO_NEIGHBOUR : NO_WAY;
}

/* ---- rewriting */

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* RFC 1624: what a checksum has to take in when these words become those. The mapped prefixes of IPv4 are on both sides
 * and cancel. */
static __always_inline __u32 addresses_differ(const struct tuple *from, const struct tuple *to)
{
	return (__u32)bpf_csum_diff((__be32 *)from->source, 32, (__be32 *)to->source, 32, 0);
}

static __always_inline __u32 ports_differ(const struct tuple *from, const struct tuple *to)
{
	return (__u32)(__u16)~from->source_port + (__u16)~from->destination_port + to->source_port + to->destination_port;
}

/* What is to be done about the UDP checksum. Between containers it is often not finished: the field holds the sum over the
 * pseudo header (the addresses, not the ports), for a card to go on from that this packet never meets. */
enum checksum { CHECKSUM_LEAVE, CHECKSUM_FINISHED, CHECKSUM_PSEUDO };

/* The UDP header's part: ports, and, where nobody else will, the checksum. */
static __always_inline void write_udp(struct udphdr *udp, const struct packet *packet, const struct tuple *to,
				      __u32 difference, enum checksum checksum)
{
	if (checksum == CHECKSUM_PSEUDO) {
		udp->check = fold((__u32)udp->check + fold(difference));
	} else if (checksum == CHECKSUM_FINISHED && udp->check) { /* zero: IPv4 without one */
		__u32 sum = (__u32)(__u16)~udp->check + fold(difference) + fold(ports_differ(&packet->seen, to));
		__u16 check = ~fold(sum);

		udp->check = check ? check : 0xffff;
	}
	udp->source = to->source_port;
	udp->dest = to->destination_port;
}

/* Write the new ends over the old ones; says whether it did. The bounds hold already (the packet was parsed), but the
 * verifier forgets them at every helper call and wants them checked for each family by itself; and the families stay apart
 * to the end, since a pointer with an offset that is one of two needs CAP_PERFMON (barrier_var keeps the compiler from it). */
static __always_inline int write_ends(void *data, void *end, const struct packet *packet, const struct tuple *to,
				      __u32 difference, int takes_hop, enum checksum checksum)
{
	struct udphdr *udp;

	if (packet->is_v6) {
		struct ipv6hdr *ip = data + IP_AT;

		if (data + HEADERS_V6 > end)
			return 0;
		__builtin_memcpy(&ip->saddr, to->source, 16);
		__builtin_memcpy(&ip->daddr, to->destination, 16);
		if (takes_hop)
			ip->hop_limit--;
		udp = data + UDP_AT_V6;
		barrier_var(udp);
		write_udp(udp, packet, to, difference, checksum);
	} else {
		struct iphdr *ip = data + IP_AT;
		__u32 sum;

		if (data + HEADERS_V4 > end)
			return 0;
		sum = (__u32)(__u16)~ip->check + fold(difference);
		ip->saddr = to->source[3];
		ip->daddr = to->destination[3];
		if (takes_hop) {
			ip->ttl--;
			sum += bpf_htons(0xfeff); /* the TTL is the high byte of its word: minus 0x0100 */
		}
		ip->check = ~fold(sum);
		udp = data + UDP_AT_V4;
		barrier_var(udp);
		write_udp(udp, packet, to, difference, checksum);
	}
	return 1;
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

/* Nothing says here whether a checksum is finished, as a socket buffer does: it is not when it is the pseudo header's sum.
 * One finished checksum in 65,536 looks the same. */
static __always_inline enum checksum kind_of_checksum(const struct packet *packet)
{
	__u32 pseudo = fold(bpf_csum_diff(0, 0, (__be32 *)packet->seen.source, 32, 0)) + bpf_htons(IPPROTO_UDP) +
		       bpf_htons(packet->payload_bytes + sizeof(struct udphdr));

	return packet->checksum == fold(pseudo) ? CHECKSUM_PSEUDO : CHECKSUM_FINISHED;
}

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

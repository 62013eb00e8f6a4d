/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Which rule a packet has, if any, and which way it then leaves this node. Nothing is written into the packet here.
 *
 * Owns: the look-ups, what a rule has carried, and the counting of packets that go up for want of a rule. Does not own:
 * sending (relay.bpf.c, which also counts the packets that go up for want of a way).
 */
#pragma once
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "parse.h"

#define AF_INET 2
#define AF_INET6 10

enum hook { INGRESS, EGRESS };

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

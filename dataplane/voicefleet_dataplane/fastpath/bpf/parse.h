/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * An Ethernet frame → the two ends of a UDP datagram, and its first byte. Nothing else is read.
 *
 *   byte 0            14                          34 (v4)  54 (v6)      42 (v4)  62 (v6)
 *        ├─ Ethernet ──┼─ IPv4, 20 bytes ───────────┼─ UDP ──────────────┼─ payload: RTP and RTCP start with 128 … 191
 *                      └─ IPv6, 40 bytes ──────────────────┘
 *
 * What has a VLAN tag, IP options, extension headers, or is a fragment goes up unread: such media is rare, the relay
 * process can carry it, and each such form read here would be code that every packet of the node runs past.
 *
 * Offsets are numbers, not structs: a struct of the three headers is padded to 44 bytes and matches nothing.
 */
#pragma once
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include "maps.h"

#define IP_AT 14
#define UDP_AT_V4 34
#define UDP_AT_V6 54
#define HEADERS_V4 42 /* up to the payload */
#define HEADERS_V6 62
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */

struct packet {
	struct tuple seen;
	__u16 ip_bytes;      /* as a route's MTU counts */
	__u16 payload_bytes;
	__u8 is_v6;
	__u8 hops;           /* TTL or hop limit */
	__u8 first_byte;     /* of the payload */
	__u16 checksum;      /* of UDP, as it stands there */
};

/* RFC 7983: RTP and RTCP. */
static __always_inline int is_media(const struct packet *packet)
{
	return packet->first_byte >= 128 && packet->first_byte <= 191;
}

/* The UDP header and the first byte behind it. The two families call it each with a constant offset and must not be merged
 * into one call with either (barrier_var): such a pointer needs CAP_PERFMON. */
static __always_inline int parse_udp(struct udphdr *udp, __u16 udp_bytes, struct packet *packet)
{
	if (bpf_ntohs(udp->len) != udp_bytes || udp_bytes <= sizeof(*udp))
		return 0; /* lengths that disagree: the stack's business; empty: the relay process counts it */
	packet->payload_bytes = udp_bytes - sizeof(*udp);
	packet->seen.source_port = udp->source;
	packet->seen.destination_port = udp->dest;
	packet->checksum = udp->check;
	packet->first_byte = *(__u8 *)(udp + 1);
	return 1;
}

static __always_inline void map_v4(__be32 *to, __be32 address)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = address;
}

/* Return whether the frame is a UDP datagram in one piece with at least a byte in it. Whether the frame holds all of it is
 * for the caller to see: a socket buffer goes on behind `end`. */
static __always_inline int parse(void *data, void *end, struct packet *packet)
{
	struct ethhdr *ethernet = data;
	struct udphdr *udp;

	if (data + HEADERS_V4 + 1 > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + IP_AT;

		if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(IP_FRAGMENT))
			return 0;
		packet->is_v6 = 0;
		packet->hops = ip->ttl;
		packet->ip_bytes = bpf_ntohs(ip->tot_len);
		map_v4(packet->seen.source, ip->saddr);
		map_v4(packet->seen.destination, ip->daddr);
		udp = data + UDP_AT_V4;
		barrier_var(udp);
		return parse_udp(udp, packet->ip_bytes - 20, packet);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + IP_AT;

		if (data + HEADERS_V6 + 1 > end || ip->version != 6 || ip->nexthdr != IPPROTO_UDP)
			return 0;
		packet->is_v6 = 1;
		packet->hops = ip->hop_limit;
		packet->ip_bytes = bpf_ntohs(ip->payload_len) + 40;
		__builtin_memcpy(packet->seen.source, &ip->saddr, 16);
		__builtin_memcpy(packet->seen.destination, &ip->daddr, 16);
		udp = data + UDP_AT_V6;
		barrier_var(udp);
		return parse_udp(udp, packet->ip_bytes - 40, packet);
	}
	return 0;
}

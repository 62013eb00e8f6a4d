/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * A rule's ends written over those that a packet came with: addresses, ports, hop limit, and the checksums over them.
 *
 * Checksums are changed by what differs (RFC 1624), never summed anew: the payload is not read, and a packet that was
 * damaged on its way stays recognisable as damaged.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "parse.h"

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

/* Before there is a socket buffer nothing says whether a checksum is finished: it is not when it is the pseudo header's sum.
 * One finished checksum in 65,536 looks the same. */
static __always_inline enum checksum kind_of_checksum(const struct packet *packet)
{
	__u32 pseudo = fold(bpf_csum_diff(0, 0, (__be32 *)packet->seen.source, 32, 0)) + bpf_htons(IPPROTO_UDP) +
		       bpf_htons(packet->payload_bytes + sizeof(struct udphdr));

	return packet->checksum == fold(pseudo) ? CHECKSUM_PSEUDO : CHECKSUM_FINISHED;
}

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

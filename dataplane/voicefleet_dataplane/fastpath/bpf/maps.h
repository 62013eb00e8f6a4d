/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the relay process and the programs share: three maps. fastpath/maps.py spells the same layouts for Python, and
 * tests/kernel/test_fastpath_layouts.py has a compiler compare the two, field by field.
 *
 *   rules     (source → destination as the packet came)  →  (source → destination as it leaves), and what it has carried
 *   control   which ports are the relay's, and until when its process stands behind the rules
 *   counters  what became of packets to the public port and of packets with a rule: each moves exactly one
 *
 * Change any struct or map here and LAYOUT has to move: a relay adopts pinned maps of its own layout only. Two things are
 * the same in every layout, since relays of any version sweep what others left: the map's name `control`, and lease_ns at
 * its start.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define LAYOUT 1

/* A packet's two ends. IPv4 addresses are IPv4-mapped (::ffff:a.b.c.d), so that one map holds both families. No padding:
 * every byte of a key takes part in the comparison. 36 bytes. */
struct tuple {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
};

/* How a rule's packets leave. A rule matches at one hook only: a tuple that is right at the egress of this node, seen at
 * its ingress, is somebody's forgery. */
enum how {
	HOW_NONE = 0,
	HOW_FORWARD = 1, /* ingress: both ends rewritten, routed to another node */
	HOW_DELIVER = 2, /* ingress: to a transceiver on this node, the client's address stays */
	HOW_RETURN = 3,  /* egress: from a transceiver on this node, the relay's address is put back */
};

/* One direction of one flow. 72 bytes. */
struct rule {
	struct tuple to;
	__u32 how;
	__u32 slot;       /* slot and generation of the owner: nothing to the program; a relay that adopts the rule reads them */
	__u32 generation;
	__u64 packets;
	__u64 bytes;      /* of UDP payload, as the user-space path counts */
	__u64 last_ns;    /* CLOCK_MONOTONIC, coarse */
};

/* What relay_xdp does where it is attached. Native XDP stands before TC, which takes what XDP passes on; so it can be
 * switched on and off without a packet lost, and what it passes up is counted once, by TC. */
enum xdp {
	XDP_OFF = 0,   /* passes everything on to TC: the other half of a comparison (fastpath/trial.py) */
	XDP_FIRST = 1, /* forwards what it can, TC the rest */
	XDP_ALONE = 2, /* there is no TC: what it passes goes to the process, and is counted here */
};

struct control {
	__u64 lease_ns;     /* rules hold until then; a relay that lives moves it on */
	__be16 public_port;
	__u16 flow_first;   /* flow ports, host order, both ends included */
	__u16 flow_last;
	__u8 returns;       /* whether there may be any HOW_RETURN rule: most relays have none, and every packet passes egress */
	__u8 xdp;           /* enum xdp */
};

enum counter {
	COUNT_FORWARDED = 0,
	COUNT_DELIVERED = 1,
	COUNT_RETURNED = 2,
	/* Passed up to the relay process, and why. The process decides what becomes of them. */
	COUNT_UP_NOT_MEDIA = 3, /* to the public port: STUN, DTLS, garbage */
	COUNT_UP_NO_RULE = 4,   /* media to the public port from an address without a rule */
	COUNT_UP_NO_LEASE = 5,  /* the relay process has been away for too long */
	COUNT_UP_TTL = 6,       /* this hop is the packet's last */
	COUNT_UP_TOO_BIG = 7,   /* for the way out */
	COUNT_UP_NO_ROUTE = 8,  /* no route, no forwarding on this interface, or (XDP) no neighbour yet */
	COUNTERS = 9,
};

/* Not preallocated: room for a million flows costs memory when they come. Not LRU: that may evict a live flow under a
 * flood; expiry and caps are the process's. max_entries is set at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2048);
	__type(key, struct tuple);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += 1; /* per CPU */
}

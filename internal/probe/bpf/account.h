/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where an opening or a closing goes: into the ring, into the entry of its
 * endpoint, into that of the rest of its cgroup, or into stats.lost. Each goes
 * to exactly one of them, and a closing goes where its opening went.
 */
#ifndef PORTWATCHER_ACCOUNT_H
#define PORTWATCHER_ACCOUNT_H

/* The size is set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* What became of all openings and closings. Only ever raised. Decoded by
 * stats_linux.go. */
struct stats {
	__u64 opened; /* records in the ring */
	__u64 closed;
	__u64 counted_opened; /* in an entry */
	__u64 counted_closed;
	__u64 missed; /* closings that found no room in the ring, in an entry */
	__u64 lost;   /* openings and closings in none of these */
} stats;

/* Set by the loader: the records of one cgroup in a second for which it may fill
 * the ring. */
const volatile __u32 budget = 512;

/* Set by user space at any time: records of one cgroup in a second above which
 * openings are counted, 0 for none; and whether UDP sockets that bind to port 0
 * are left out. */
__u32 burst_limit;
__u32 skip_udp_auto = 1;

#define SECOND 1000000000ULL

struct spent {
	__u64 window; /* a second of CLOCK_BOOTTIME */
	__u64 records;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64); /* cgroup */
	__type(value, struct spent);
} budgets SEC(".maps");

/* What is counted together. With family 0 (and neither address nor port) it is
 * the rest of a cgroup, in the second map. Decoded by count.go. */
struct count_key {
	__u64 cgroup;
	__u64 netns;
	__u8 address[16];
	__u16 port;
	__u8 protocol;
	__u8 family;
	__u8 pad[4];
};

/* Decoded by count.go. The first three are exact; the others are those of an
 * opening or closing that was among the last where two processors count at once. */
struct count {
	__u64 opened;
	__u64 closed;
	__u64 missed;
	__u64 first; /* CLOCK_BOOTTIME, nanoseconds */
	__u64 last;
	__u64 opened_at;
	__u64 opened_cookie;
	__u64 task_cgroup;
	__u64 closed_at; /* missed ones too */
	__u64 closed_cookie;
	__u32 inode;
	__u32 uid;
	__u32 pid;
	__u8 flags;
	__u8 several; /* another process opened, too */
	__u8 pad[2];
	char name[TASK_COMM_LEN];
};

/* The number of entries is set by the loader. */
struct entries {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct count_key);
	__type(value, struct count);
};

#define ENDPOINTS 0
#define RESTS 1

/* User space takes the counts by putting an empty map in the place of a filled
 * one. The kernel returns from that when no program uses the old one any more
 * (maybe_wait_bpf_programs in kernel/bpf/syscall.c). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct entries);
} counts SEC(".maps");

static const struct count nothing;

/* Which way a socket's opening went. */
#define WAY_NONE 0 /* it is not open, or was before the programs were there */
#define WAY_RING 1
#define WAY_COUNTED 2
#define WAY_LOST 3
#define WAY_SKIPPED 4

/* It lives and dies with the socket, so it can neither overflow nor be left over.
 * Sockets that call neither listen nor bind have none. */
struct socket_state {
	struct count_key key; /* of the opening, where it was not skipped */
	__u8 way;
	__u8 port_zero; /* UDP: the last bind asked for port 0 */
	__u8 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_state);
} socket_states SEC(".maps");

static __always_inline void add(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline void make_key(struct count_key *key, struct record *r)
{
	key->cgroup = r->socket_cgroup ? r->socket_cgroup : bpf_get_current_cgroup_id();
	key->netns = r->netns;
	__builtin_memcpy(key->address, r->address, sizeof(key->address));
	key->port = r->port;
	key->protocol = r->protocol;
	key->family = r->family;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

static __always_inline void make_rest(struct count_key *key)
{
	__builtin_memset(key->address, 0, sizeof(key->address));
	key->port = 0;
	key->family = 0;
}

/* What the cgroup has put into the ring in this second. Two processors that
 * begin a second at once may forget each other's first records. */
static __always_inline struct spent *spent_by(__u64 cgroup, __u64 now)
{
	struct spent *s = bpf_map_lookup_elem(&budgets, &cgroup);
	__u64 window = now / SECOND;

	if (!s) {
		struct spent fresh = {window, 0};

		bpf_map_update_elem(&budgets, &cgroup, &fresh, BPF_NOEXIST);
		return bpf_map_lookup_elem(&budgets, &cgroup);
	}
	if (s->window != window) {
		s->window = window;
		s->records = 0;
	}
	return s;
}

/* Who has spent its budget fills half of the ring with openings, and seven
 * eighths with the closings that follow: what is left is for the others. */
static __always_inline int may_send(struct spent *s, __u8 kind)
{
	__u64 size;

	if (s && kind == KIND_OPENED && burst_limit && s->records >= burst_limit)
		return 0;
	if (s && s->records < budget)
		return 1;
	size = bpf_ringbuf_query(&events, BPF_RB_RING_SIZE);
	size = kind == KIND_OPENED ? size / 2 : size - size / 8;
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < size;
}

static __always_inline int send(struct record *r, __u64 cgroup)
{
	struct spent *s = spent_by(cgroup, r->time);

	if (!may_send(s, r->kind) || bpf_ringbuf_output(&events, r, sizeof(*r), 0))
		return 0;
	if (s)
		add(&s->records);
	add(r->kind == KIND_OPENED ? &stats.opened : &stats.closed);
	return 1;
}

/* Returns the entry of a key. NULL: there is no room. */
static __always_inline struct count *entry(__u32 map, struct count_key *key)
{
	void *entries = bpf_map_lookup_elem(&counts, &map);
	struct count *c;

	if (!entries)
		return NULL;
	c = bpf_map_lookup_elem(entries, key);
	if (c)
		return c;
	/* Where another processor is first, its entry is found. */
	bpf_map_update_elem(entries, key, &nothing, BPF_NOEXIST);
	return bpf_map_lookup_elem(entries, key);
}

/* Makes key that of the rest where the endpoint's own entry finds no room. */
static __always_inline struct count *entry_or_rest(struct count_key *key)
{
	struct count *c;

	if (key->family) {
		c = entry(ENDPOINTS, key);
		if (c)
			return c;
		make_rest(key);
	}
	c = entry(RESTS, key);
	if (!c)
		add(&stats.lost);
	return c;
}

static __always_inline void add_time(struct count *c, __u64 now)
{
	if (!c->first || now < c->first)
		c->first = now;
	if (now > c->last)
		c->last = now;
}

static __always_inline __u8 count_opening(struct count_key *key, struct record *r)
{
	struct count *c = entry_or_rest(key);

	if (!c)
		return WAY_LOST;
	if (c->pid && c->pid != r->pid)
		c->several = 1;
	add(&c->opened);
	add_time(c, r->time);
	c->opened_at = r->time;
	c->opened_cookie = r->cookie;
	c->task_cgroup = r->task_cgroup;
	c->inode = r->inode;
	c->uid = r->uid;
	c->pid = r->pid;
	c->flags = r->flags;
	__builtin_memcpy(c->name, r->name, sizeof(c->name));
	add(&stats.counted_opened);
	return WAY_COUNTED;
}

static __always_inline void count_closing(struct count_key *key, struct record *r, int missed)
{
	struct count *c = entry_or_rest(key);

	if (!c)
		return;
	add(missed ? &c->missed : &c->closed);
	add_time(c, r->time);
	c->closed_at = r->time;
	c->closed_cookie = r->cookie;
	if (!c->opened)
		c->flags = r->flags & (FLAG_IPV6_ONLY | FLAG_AUTO_BOUND);
	add(missed ? &stats.missed : &stats.counted_closed);
}

/* Takes an opening in. Without state the closing could not follow it. */
static __always_inline void opened(struct socket_state *state, struct record *r)
{
	struct count_key key;

	if (!state) {
		add(&stats.lost);
		return;
	}
	make_key(&key, r);
	if (send(r, key.cgroup))
		state->way = WAY_RING;
	else
		state->way = count_opening(&key, r);
	state->key = key;
}

/* Takes a closing in. A socket without state, or with one that tells no way, was
 * open before the programs were there, or its opening was lost with its state. */
static __always_inline void closed(struct socket_state *state, struct record *r)
{
	__u8 way = state ? state->way : WAY_NONE;
	struct count_key key;

	if (state)
		state->way = WAY_NONE;
	if (way == WAY_LOST) {
		add(&stats.lost);
		return;
	}
	if (state && (way == WAY_RING || way == WAY_COUNTED))
		key = state->key;
	else
		make_key(&key, r);
	if (way == WAY_COUNTED)
		count_closing(&key, r, 0);
	else if (!send(r, key.cgroup))
		count_closing(&key, r, 1);
}

#endif

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Opens and closes of TCP listeners and unconnected UDP sockets, host-wide.
 *
 * The paths that every connection takes (inet_sock_set_state, sock_release,
 * connect) decide on two or three comparisons and return; nothing is looked up,
 * allocated or sent for a socket that cannot be spoken to.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define KIND_OPENED 1
#define KIND_CLOSED 2

#define FLAG_IPV6_ONLY 1
#define FLAG_AUTO_BOUND 2
#define FLAG_CONNECTED 4

/* Decoded by record.go; all numbers in the host's byte order. */
struct record {
	__u64 time; /* CLOCK_BOOTTIME, nanoseconds */
	__u64 cookie;
	__u64 netns;
	__u64 socket_cgroup;
	__u64 task_cgroup;
	__u32 inode;
	__u32 uid;
	__u32 pid;
	__u16 port;
	__u8 kind;
	__u8 protocol;
	__u8 family;
	__u8 flags;
	__u8 pad[6];
	__u8 address[16];
	char name[TASK_COMM_LEN];
};

/* The size is set by the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* What a UDP socket's own life told. It lives and dies with the socket, so it
 * can neither overflow nor be left over; sockets that never call bind have none. */
struct udp_state {
	__u8 port_zero; /* the last bind asked for port 0 */
	__u8 open;      /* reported as opened, not yet as closed */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct udp_state);
} udp_states SEC(".maps");

/* Records that found no room. Only ever raised. */
__u64 lost;

/* The last quarter of the ring is for closes: an opening that is lost is found
 * by the next scan, while a lost close leaves a port open that is not. */
static __always_inline int full_for(__u8 kind)
{
	__u64 size;

	if (kind != KIND_OPENED)
		return 0;
	size = bpf_ringbuf_query(&events, BPF_RB_RING_SIZE);
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > size - size / 4;
}

static __always_inline struct record *reserve(__u8 kind, __u8 protocol)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct record *r = NULL;

	if (!full_for(kind))
		r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);
	if (!r) {
		__sync_fetch_and_add(&lost, 1);
		return NULL;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->time = now;
	r->kind = kind;
	r->protocol = protocol;
	return r;
}

/* The caller of the system call. Not for closes, which may run elsewhere. */
static __always_inline void add_process(struct record *r)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	r->pid = bpf_get_current_pid_tgid() >> 32;
	r->task_cgroup = bpf_get_current_cgroup_id();
	/* The process's name, as in /proc/<pid>/comm; bpf_get_current_comm would
	 * give the thread's. */
	BPF_CORE_READ_STR_INTO(&r->name, task, group_leader, comm);
}

static __always_inline void add_socket(struct record *r, struct sock *sk)
{
	struct socket *socket = BPF_CORE_READ(sk, sk_socket);

	r->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie);
	r->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	r->uid = BPF_CORE_READ(sk, sk_uid.val);

	/* A TCP port that the kernel chose is put back before the state changes
	 * to CLOSE; inet_sport still holds it. */
	r->port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (!r->port && r->kind == KIND_CLOSED)
		r->port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));

	if (r->family == AF_INET)
		BPF_CORE_READ_INTO((__u32 *)r->address, sk, __sk_common.skc_rcv_saddr);
	else if (bpf_core_field_exists(sk->__sk_common.skc_v6_rcv_saddr))
		BPF_CORE_READ_INTO(&r->address, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
	if (r->family == AF_INET6 && BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_ipv6only))
		r->flags |= FLAG_IPV6_ONLY;

	/* Before Linux 5.15 the field was a tagged union, best left unread. */
	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		r->socket_cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	if (socket)
		r->inode = BPF_CORE_READ((struct socket_alloc *)socket, vfs_inode.i_ino);
}

static __always_inline int port_locked(struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, struct sock *sk, int oldstate, int newstate)
{
	struct record *r;
	__u8 kind;

	/* An accepted connection starts as a copy of its listener, so that its
	 * first change reads LISTEN to SYN_RECV: only CLOSE ends a listener. */
	if (newstate == TCP_LISTEN)
		kind = KIND_OPENED;
	else if (oldstate == TCP_LISTEN && newstate == TCP_CLOSE)
		kind = KIND_CLOSED;
	else
		return 0;
	/* MPTCP runs on a TCP socket that listens too, and that one is in dumps. */
	if (oldstate == newstate || sk->sk_protocol != IPPROTO_TCP)
		return 0;

	r = reserve(kind, IPPROTO_TCP);
	if (!r)
		return 0;
	r->cookie = bpf_get_socket_cookie(sk);
	add_socket(r, sk);
	if (!port_locked(sk))
		r->flags |= FLAG_AUTO_BOUND;
	if (kind == KIND_OPENED)
		add_process(r);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

/* Before a bind: the only place that tells which port was asked for. */
static __always_inline int before_bind(struct bpf_sock_addr *ctx)
{
	struct udp_state *state;
	int zero;

	if (ctx->protocol != IPPROTO_UDP || !ctx->sk)
		return 1;
	zero = ctx->user_port == 0;
	state = bpf_sk_storage_get(&udp_states, ctx->sk, NULL,
				   zero ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (state)
		state->port_zero = zero;
	return 1;
}

SEC("cgroup/bind4")
int udp_bind4(struct bpf_sock_addr *ctx)
{
	return before_bind(ctx);
}

SEC("cgroup/bind6")
int udp_bind6(struct bpf_sock_addr *ctx)
{
	return before_bind(ctx);
}

/* The kernel hands these programs its struct sock as the context
 * (BPF_PROG_TYPE_CGROUP_SOCK in linux/bpf_types.h); the verifier maps only the
 * fields of struct bpf_sock. Reading more is checked: the cookie must agree. */
static __always_inline struct sock *kernel_sock(struct bpf_sock *ctx, __u64 cookie)
{
	struct sock *sk = (void *)ctx;

	return (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) == cookie ? sk : NULL;
}

static __always_inline void udp_report(struct bpf_sock *ctx, __u8 kind, __u8 flags)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct sock *sk = kernel_sock(ctx, cookie);
	struct record *r;

	if (!sk) {
		__sync_fetch_and_add(&lost, 1);
		return;
	}
	r = reserve(kind, IPPROTO_UDP);
	if (!r)
		return;
	r->cookie = cookie;
	r->flags = flags;
	add_socket(r, sk);
	if (kind == KIND_OPENED)
		add_process(r);
	bpf_ringbuf_submit(r, 0);
}

static __always_inline int after_bind(struct bpf_sock *ctx)
{
	struct udp_state *state;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	state = bpf_sk_storage_get(&udp_states, ctx, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (state)
		state->open = 1;
	udp_report(ctx, KIND_OPENED, state && state->port_zero ? FLAG_AUTO_BOUND : 0);
	return 1;
}

SEC("cgroup/post_bind4")
int udp_bound4(struct bpf_sock *ctx)
{
	return after_bind(ctx);
}

SEC("cgroup/post_bind6")
int udp_bound6(struct bpf_sock *ctx)
{
	return after_bind(ctx);
}

/* A UDP socket that connects takes datagrams from its peer alone: it can no
 * longer be spoken to. The hook comes before the connect, which may yet fail. */
static __always_inline int before_connect(struct bpf_sock_addr *ctx)
{
	struct udp_state *state;
	struct bpf_sock *sk;
	struct record *r;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	state = bpf_sk_storage_get(&udp_states, sk, NULL, 0);
	if (!state || !state->open)
		return 1;
	state->open = 0;

	r = reserve(KIND_CLOSED, IPPROTO_UDP);
	if (!r)
		return 1;
	r->cookie = bpf_get_socket_cookie(ctx);
	r->netns = bpf_get_netns_cookie(ctx);
	r->port = sk->src_port;
	r->family = sk->family;
	r->flags = FLAG_CONNECTED | (state->port_zero ? FLAG_AUTO_BOUND : 0);
	if (sk->family == AF_INET) {
		*(__u32 *)r->address = sk->src_ip4;
	} else {
		__u32 *word = (__u32 *)r->address;

		word[0] = sk->src_ip6[0];
		word[1] = sk->src_ip6[1];
		word[2] = sk->src_ip6[2];
		word[3] = sk->src_ip6[3];
	}
	bpf_ringbuf_submit(r, 0);
	return 1;
}

SEC("cgroup/connect4")
int udp_connect4(struct bpf_sock_addr *ctx)
{
	return before_connect(ctx);
}

SEC("cgroup/connect6")
int udp_connect6(struct bpf_sock_addr *ctx)
{
	return before_connect(ctx);
}

/* Closes of sockets that were there before the programs are reported too: what
 * counts is the socket itself, bound to a port by number and unconnected, as a
 * dump would show it. A client that the kernel gave a port is neither. */
SEC("cgroup/sock_release")
int udp_release(struct bpf_sock *ctx)
{
	struct sock *sk = (void *)ctx;
	struct udp_state *state;
	int locked;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	if (!BPF_CORE_READ(sk, __sk_common.skc_num) || BPF_CORE_READ(sk, __sk_common.skc_dport))
		return 1;
	locked = port_locked(sk);
	if (!locked) {
		state = bpf_sk_storage_get(&udp_states, ctx, NULL, 0);
		if (!state || !state->open)
			return 1;
	}
	udp_report(ctx, KIND_CLOSED, locked ? 0 : FLAG_AUTO_BOUND);
	return 1;
}

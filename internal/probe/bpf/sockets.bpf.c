// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Openings and closings of TCP listeners and unconnected UDP sockets, host-wide:
 * what each hook sees of them. account.h has where they go.
 *
 * The hooks that every connection passes (inet_sock_set_state, sock_release,
 * connect) decide on two or three comparisons and return; nothing is looked up,
 * allocated or sent for a socket that cannot be spoken to. Where the kernel lets
 * programs be attached to its functions, a served connection passes none of them.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#include "record.h"
#include "account.h"

/* The cookie of a socket that the loader opens to see whether the programs of
 * functions run, and the kinds of what they saw of it. It is no event. */
__u64 trial_cookie;
__u32 trial_seen;

static __always_inline void tcp(struct sock *sk, __u8 kind)
{
	__u64 cookie = bpf_get_socket_cookie(sk);
	struct record r;

	if (cookie == trial_cookie) {
		trial_seen |= kind;
		return;
	}
	start_record(&r, kind, IPPROTO_TCP);
	r.cookie = cookie;
	add_socket(&r, sk);
	if (!port_locked(sk))
		r.flags |= FLAG_AUTO_BOUND;
	if (kind == KIND_OPENED) {
		add_process(&r);
		opened(bpf_sk_storage_get(&socket_states, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE), &r);
	} else {
		closed(bpf_sk_storage_get(&socket_states, sk, NULL, 0), &r);
	}
}

/* The two programs below are used instead of tcp_state, where the kernel lets
 * them be attached: a connection does not pass there. The arguments that follow
 * sk differ between kernels; that the socket listens shows that it worked. */
SEC("fexit/inet_csk_listen_start")
int BPF_PROG(tcp_listen, struct sock *sk)
{
	if (sk->sk_protocol == IPPROTO_TCP && sk->__sk_common.skc_state == TCP_LISTEN)
		tcp(sk, KIND_OPENED);
	return 0;
}

SEC("fentry/inet_csk_listen_stop")
int BPF_PROG(tcp_listen_stop, struct sock *sk)
{
	if (sk->sk_protocol == IPPROTO_TCP)
		tcp(sk, KIND_CLOSED);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, struct sock *sk, int oldstate, int newstate)
{
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
	tcp(sk, kind);
	return 0;
}

/* Before a bind: the only place that tells which port was asked for. */
static __always_inline int before_bind(struct bpf_sock_addr *ctx)
{
	struct socket_state *state;
	int zero;

	if (ctx->protocol != IPPROTO_UDP || !ctx->sk)
		return 1;
	zero = ctx->user_port == 0;
	state = bpf_sk_storage_get(&socket_states, ctx->sk, NULL,
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

static __always_inline int after_bind(struct bpf_sock *ctx)
{
	struct socket_state *state;
	struct record r;
	struct sock *sk;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	state = bpf_sk_storage_get(&socket_states, ctx, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (state && state->port_zero && skip_udp_auto) {
		state->way = WAY_SKIPPED;
		return 1;
	}
	start_record(&r, KIND_OPENED, IPPROTO_UDP);
	r.cookie = bpf_get_socket_cookie(ctx);
	if (r.cookie == trial_cookie)
		return 1;
	sk = kernel_sock(ctx, r.cookie);
	if (!sk) {
		add(&stats.lost);
		return 1;
	}
	if (state && state->port_zero)
		r.flags = FLAG_AUTO_BOUND;
	add_socket(&r, sk);
	add_process(&r);
	opened(state, &r);
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
	struct socket_state *state;
	struct bpf_sock *sk;
	struct record r;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	state = bpf_sk_storage_get(&socket_states, sk, NULL, 0);
	if (!state || state->way == WAY_NONE)
		return 1;
	if (state->way == WAY_SKIPPED && skip_udp_auto) {
		state->way = WAY_NONE;
		return 1;
	}

	start_record(&r, KIND_CLOSED, IPPROTO_UDP);
	r.cookie = bpf_get_socket_cookie(ctx);
	r.netns = bpf_get_netns_cookie(ctx);
	r.port = sk->src_port;
	r.family = sk->family;
	r.flags = FLAG_CONNECTED | (state->port_zero ? FLAG_AUTO_BOUND : 0);
	if (sk->family == AF_INET) {
		*(__u32 *)r.address = sk->src_ip4;
	} else {
		__u32 *word = (__u32 *)r.address;

		word[0] = sk->src_ip6[0];
		word[1] = sk->src_ip6[1];
		word[2] = sk->src_ip6[2];
		word[3] = sk->src_ip6[3];
	}
	closed(state, &r);
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

/* Whether a UDP socket that gives up its port could be spoken to. Closings of sockets
 * that were there before the programs are taken in too: what counts is the socket
 * itself, bound to a port by number and unconnected, as a dump would show it. A
 * client that the kernel gave a port is neither. */
static __always_inline int served(struct sock *sk, struct socket_state *state)
{
	if (!port_locked(sk) && (!state || state->way == WAY_NONE))
		return 0;
	return !(state && state->way == WAY_SKIPPED && skip_udp_auto);
}

static __always_inline void udp_closed(struct sock *sk, struct socket_state *state, __u64 cookie)
{
	struct record r;

	start_record(&r, KIND_CLOSED, IPPROTO_UDP);
	r.cookie = cookie;
	if (!port_locked(sk))
		r.flags |= FLAG_AUTO_BOUND;
	add_socket(&r, sk);
	closed(state, &r);
}

SEC("cgroup/sock_release")
int udp_release(struct bpf_sock *ctx)
{
	struct sock *sk = (void *)ctx;
	struct socket_state *state;
	__u64 cookie;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	if (!BPF_CORE_READ(sk, __sk_common.skc_num) || BPF_CORE_READ(sk, __sk_common.skc_dport))
		return 1;
	state = bpf_sk_storage_get(&socket_states, ctx, NULL, 0);
	if (!served(sk, state))
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	if (!kernel_sock(ctx, cookie)) {
		add(&stats.lost);
		return 1;
	}
	udp_closed(sk, state, cookie);
	return 1;
}

/* Used instead of udp_release, where the kernel lets it be attached: of a TCP
 * connection there is no call. A socket gives up its port when it is released, and
 * when a client that the kernel gave a port dissolves its connection. */
SEC("fentry/udp_lib_unhash")
int BPF_PROG(udp_unhash, struct sock *sk)
{
	struct socket_state *state;
	__u64 cookie;

	if (sk->sk_protocol != IPPROTO_UDP || !sk->__sk_common.skc_num || sk->__sk_common.skc_dport)
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	if (cookie == trial_cookie) {
		trial_seen |= KIND_CLOSED;
		return 0;
	}
	state = bpf_sk_storage_get(&socket_states, sk, NULL, 0);
	if (served(sk, state))
		udp_closed(sk, state, cookie);
	return 0;
}

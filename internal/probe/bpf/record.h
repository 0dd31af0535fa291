/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The record of an opening or a closing, and how it is read off a socket. */
#ifndef PORTWATCHER_RECORD_H
#define PORTWATCHER_RECORD_H

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

static __always_inline void start_record(struct record *r, __u8 kind, __u8 protocol)
{
	__builtin_memset(r, 0, sizeof(*r));
	r->time = bpf_ktime_get_boot_ns();
	r->kind = kind;
	r->protocol = protocol;
}

/* The caller of the system call. Not for closings, which may run elsewhere. */
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

#endif

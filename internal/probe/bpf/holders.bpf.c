// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The open files of all processes that are listening sockets. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Decoded by holders_linux.go, in the host's byte order. */
struct holder {
	__u32 inode;
	__u32 pid;
	__u32 fd;
};

static __always_inline int listens(struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	if (family != AF_INET && family != AF_INET6)
		return 0;
	switch (BPF_CORE_READ(sk, sk_protocol)) {
	case IPPROTO_TCP:
	case IPPROTO_MPTCP:
		return state == TCP_LISTEN;
	case IPPROTO_UDP:
		return state == TCP_CLOSE;
	}
	return 0;
}

SEC("iter/task_file")
int holders(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct holder h = {};
	struct socket *socket;
	struct inode *inode;

	if (!task || !file)
		return 0;
	inode = file->f_inode;
	/* A socket's node in a file system has the mode, but not the magic. */
	if ((inode->i_mode & S_IFMT) != S_IFSOCK || inode->i_sb->s_magic != SOCKFS_MAGIC)
		return 0;
	socket = file->private_data;
	if (!listens(BPF_CORE_READ(socket, sk)))
		return 0;
	h.inode = inode->i_ino;
	h.pid = task->tgid;
	h.fd = ctx->fd;
	bpf_seq_write(ctx->meta->seq, &h, sizeof(h));
	return 0;
}

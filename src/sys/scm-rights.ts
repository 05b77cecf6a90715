/**
 * Receiving a file descriptor over a Unix socket (unix(7), SCM_RIGHTS): how fusermount3 hands over `/dev/fuse`.
 * Main thread, once per mount; loaded only for mounts made without root.
 */
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { errnoName } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;

const libc = koffi.load(null);
const iovec = koffi.struct({ iov_base: 'void *', iov_len: 'size_t' });
const msghdr = koffi.struct({
  msg_name: 'void *',
  msg_namelen: 'uint32_t',
  msg_iov: koffi.pointer(iovec),
  msg_iovlen: 'size_t',
  msg_control: 'void *',
  msg_controllen: 'size_t',
  msg_flags: 'int',
});
const cSocketpair = libc.func('int socketpair(int domain, int type, int protocol, void *sockets)');
const cRecvmsg = libc.func('recvmsg', 'int64_t', ['int', koffi.inout(koffi.pointer(msghdr)), 'int']);

/** A connected pair of stream sockets, both close-on-exec. */
export function socketPair(): [number, number] {
  const sockets = new Int32Array(2);
  if (cSocketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) !== 0) {
    throw new CowfsError('failed', `socketpair: ${errnoName(koffi.errno())}`);
  }
  return [sockets[0] as number, sockets[1] as number];
}

/**
 * Waits for one message and takes the descriptor in it.
 *
 * @returns the descriptor, close-on-exec; -1 when the peer closed the socket or sent none
 */
export function receiveFd(socket: number): number {
  const data = Buffer.alloc(1);
  // struct cmsghdr (cmsg_len u64, level i32, type i32) and one int, padded to 8: 24 bytes.
  const control = Buffer.alloc(24);
  const message = {
    msg_name: null,
    msg_namelen: 0,
    msg_iov: [{ iov_base: data, iov_len: data.length }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control.length,
    msg_flags: 0,
  };
  const received = Number(cRecvmsg(socket, message, MSG_CMSG_CLOEXEC));
  closeSync(socket);
  if (received <= 0) return -1;
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return -1;
  return control.readInt32LE(16);
}

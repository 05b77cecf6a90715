/**
 * Runs a program for which io_uring_setup(2) fails with EPERM, as under the seccomp profile of most containers:
 * `without-io-uring.mjs PROGRAM ARGUMENT...`. Needs root, or no_new_privs, which it takes for itself then.
 */
import koffi from 'koffi';

const libc = koffi.load(null);
const prctl = libc.func('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)');
const seccomp = libc.func('prctl', 'int', ['int', 'unsigned long', 'void *', 'unsigned long', 'unsigned long']);
const execvp = libc.func('int execvp(const char *file, const char **argv)');
const fcntl = libc.func('fcntl', 'int', ['int', 'int', 'int']);

const F_SETFD = 2;
const PR_SET_NO_NEW_PRIVS = 38;
const PR_SET_SECCOMP = 22;
const SECCOMP_MODE_FILTER = 2;
const SYS_io_uring_setup = 425;
const EPERM = 1;

/** `struct sock_filter`: code, jump if true, jump if false, operand (linux/filter.h, linux/seccomp.h). */
const FILTER = [
  [0x20, 0, 0, 0], // load the number of the system call
  [0x15, 0, 1, SYS_io_uring_setup],
  [0x06, 0, 0, 0x0005_0000 | EPERM], // SECCOMP_RET_ERRNO
  [0x06, 0, 0, 0x7fff_0000], // SECCOMP_RET_ALLOW
];

const instructions = Buffer.alloc(FILTER.length * 8);
for (const [index, [code, yes, no, operand]] of FILTER.entries()) {
  instructions.writeUInt16LE(code, index * 8);
  instructions.writeUInt8(yes, index * 8 + 2);
  instructions.writeUInt8(no, index * 8 + 3);
  instructions.writeUInt32LE(operand, index * 8 + 4);
}
// struct sock_fprog: how many, and where.
const program = Buffer.alloc(16);
program.writeUInt16LE(FILTER.length, 0);
program.writeBigUInt64LE(BigInt(koffi.address(instructions)), 8);

const [file, ...args] = process.argv.slice(2);
if (process.geteuid() !== 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) throw new Error('no_new_privs');
if (seccomp(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) !== 0) throw new Error('no seccomp');
// Node keeps its standard streams from programs that it does not start itself.
for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0);
execvp(file, [file, ...args, null]);
throw new Error(`${file} cannot be executed`);

/** The WASI functions, as the proxy has them: stdout and stderr become log lines, randomness and clocks work. */
import { RANDOM_BYTES_MAX } from './abi.js';
import type { Vm } from './vm.js';

const Errno = { Success: 0, Badf: 8, Fault: 21, Inval: 28, Nosys: 52, Notsup: 58 } as const;
const LOG_LEVEL: Readonly<Record<number, number>> = { 1: 2, 2: 4 };
const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC = 1;

export type HostFunctions = Record<string, (...args: never[]) => number>;

export function wasiImports(vm: Vm): Record<string, (...args: number[]) => number> {
  const functions = {
    fd_write: (fd: number, iovs: number, count: number, writtenAt: number): number =>
      fdWrite(vm, fd, iovs, count, writtenAt),
    fd_read: (): number => Errno.Nosys,
    fd_seek: (): number => Errno.Success,
    fd_close: (): number => Errno.Success,
    fd_fdstat_get: (fd: number, at: number): number => {
      if (LOG_LEVEL[fd] === undefined) return Errno.Badf;
      const stat = Buffer.alloc(24);
      stat.writeUInt32LE(64, 8); // may write
      vm.memory.set(at, stat);
      return Errno.Success;
    },
    environ_get: (pointersAt: number, textAt: number): number => environGet(vm, pointersAt, textAt),
    environ_sizes_get: (countAt: number, sizeAt: number): number => {
      const lines = environment(vm);
      const size = lines.reduce((sum, line) => sum + line.length + 1, 0);
      return vm.memory.setU32(countAt, lines.length) && vm.memory.setU32(sizeAt, size) ? Errno.Success : Errno.Fault;
    },
    args_get: (): number => Errno.Success,
    args_sizes_get: (countAt: number, sizeAt: number): number =>
      vm.memory.setU32(countAt, 0) && vm.memory.setU32(sizeAt, 0) ? Errno.Success : Errno.Fault,
    clock_time_get: (id: number, _precision: bigint, at: number): number => {
      const clock = vm.process.clock;
      if (id !== CLOCK_REALTIME && id !== CLOCK_MONOTONIC) return Errno.Notsup;
      const now = id === CLOCK_REALTIME ? clock.realtimeNs() : clock.monotonicNs();
      return vm.memory.setU64(at, now) ? Errno.Success : Errno.Fault;
    },
    random_get: (at: number, length: number): number => {
      if (length >>> 0 > RANDOM_BYTES_MAX) return Errno.Inval;
      return vm.memory.set(at, vm.process.random(length >>> 0)) ? Errno.Success : Errno.Fault;
    },
    sched_yield: (): number => Errno.Success,
    // The proxy only notes it; the guest goes on. AssemblyScript traps right behind it.
    proc_exit: (): number => Errno.Success,
  };
  return functions as unknown as Record<string, (...args: number[]) => number>;
}

function environment(vm: Vm): Buffer[] {
  return Object.entries(vm.process.environment).map(([name, value]) => Buffer.from(`${name}=${value}`, 'utf8'));
}

function environGet(vm: Vm, pointersAt: number, textAt: number): number {
  let at = textAt;
  for (const [i, line] of environment(vm).entries()) {
    const terminated = Buffer.concat([line, Buffer.alloc(1)]);
    if (!vm.memory.setU32(pointersAt + 4 * i, at) || !vm.memory.set(at, terminated)) return Errno.Fault;
    at += terminated.length;
  }
  return Errno.Success;
}

function fdWrite(vm: Vm, fd: number, iovs: number, count: number, writtenAt: number): number {
  const level = LOG_LEVEL[fd];
  if (level === undefined) return Errno.Badf;
  const parts: Buffer[] = [];
  for (let i = 0; i < count; i++) {
    const iovec = vm.memory.view(iovs + 8 * i, 8);
    if (iovec === undefined) return Errno.Fault;
    const part = vm.memory.copy(iovec.readUInt32LE(0), iovec.readUInt32LE(4));
    if (part === undefined) return Errno.Fault;
    parts.push(part);
  }
  const bytes = Buffer.concat(parts);
  if (bytes.length > 0) vm.process.log(level, bytes.toString('utf8').replace(/\n$/, ''));
  return vm.memory.setU32(writtenAt, bytes.length) ? Errno.Success : Errno.Fault;
}

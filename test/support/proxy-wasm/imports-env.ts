/** The `proxy_*` host functions: checks arguments and memory, then asks the context. */
import { BUFFER_TYPE_MAX, MAP_TYPE_MAX, Status } from './abi.js';
import type { HeaderMap } from './header-map.js';
import { decodePairs, encodedPairsSize, encodePairsInto, type Pair } from './pairs.js';
import type { Vm } from './vm.js';

type Functions = Record<string, (...args: number[]) => number>;

export function envImports(vm: Vm): Functions {
  const functions = {
    ...generalImports(vm),
    ...sharedImports(vm),
    ...headerImports(vm),
    ...bufferImports(vm),
    ...calloutImports(vm),
    ...metricImports(vm),
  };
  return functions;
}

const BAD_MEMORY = Status.InvalidMemoryAccess;

function ok(written: boolean): Status {
  return written ? Status.Ok : BAD_MEMORY;
}

function given(vm: Vm, value: Buffer | Status, pointerAt: number, sizeAt: number): Status {
  return typeof value === 'number' ? value : ok(vm.give(value, pointerAt, sizeAt));
}

function pairsAt(vm: Vm, at: number, size: number): Pair[] | undefined {
  const view = vm.memory.view(at, size);
  return view === undefined ? undefined : (decodePairs(view) ?? []);
}

/** NUL-separated path parts; a trailing NUL adds none. */
function splitPath(path: string): string[] {
  return (path.endsWith('\0') ? path.slice(0, -1) : path).split('\0');
}

function generalImports(vm: Vm): object {
  const memory = (): Vm['memory'] => vm.memory;
  return {
    proxy_log: (level: number, at: number, size: number): number => {
      const bytes = memory().copy(at, size);
      if (bytes === undefined) return BAD_MEMORY;
      vm.process.log(level, bytes.toString('utf8'));
      return Status.Ok;
    },
    proxy_get_log_level: (at: number): number => ok(memory().setU32(at, vm.process.logLevel)),
    proxy_get_status: (codeAt: number, pointerAt: number, sizeAt: number): number => {
      const status = vm.context().root.status;
      if (!memory().setU32(codeAt, status.code)) return BAD_MEMORY;
      return ok(vm.give(Buffer.from(status.text, 'utf8'), pointerAt, sizeAt));
    },
    proxy_set_property: (pathAt: number, pathSize: number, valueAt: number, valueSize: number): number => {
      const path = memory().text(pathAt, pathSize);
      const value = memory().copy(valueAt, valueSize);
      if (path === undefined || value === undefined) return BAD_MEMORY;
      return vm.context().setProperty(path, value);
    },
    proxy_get_property: (pathAt: number, pathSize: number, pointerAt: number, sizeAt: number): number => {
      const path = memory().text(pathAt, pathSize);
      if (path === undefined) return BAD_MEMORY;
      return given(vm, vm.context().property(splitPath(path)) ?? Status.NotFound, pointerAt, sizeAt);
    },
    proxy_send_local_response: (
      ...[code, detailsAt, detailsSize, bodyAt, bodySize, pairsPointer, pairsSize, grpcStatus]: [
        ...[number, number, number, number, number, number, number, number],
      ]
    ): number => {
      const details = memory().text(detailsAt, detailsSize);
      const body = memory().copy(bodyAt, bodySize);
      const headers = pairsAt(vm, pairsPointer, pairsSize);
      if (details === undefined || body === undefined || headers === undefined) return BAD_MEMORY;
      vm.context().sendLocalResponse({
        code: code >>> 0,
        details: details.replace(/\s/g, '_'),
        body,
        headers,
        grpcStatus,
      });
      vm.stopNextIteration = true;
      return Status.Ok;
    },
    proxy_continue_stream: (type: number): number => vm.context().continueStream(type),
    proxy_close_stream: (type: number): number => vm.context().closeStream(type),
    proxy_set_tick_period_milliseconds: (ms: number): number => {
      vm.context().root.setTickPeriod(ms >>> 0);
      return Status.Ok;
    },
    proxy_get_current_time_nanoseconds: (at: number): number => ok(memory().setU64(at, vm.process.clock.realtimeNs())),
    proxy_set_effective_context: (id: number): number => (vm.setEffective(id >>> 0) ? Status.Ok : Status.BadArgument),
    proxy_done: (): number => vm.context().done(),
    proxy_call_foreign_function: (nameAt: number, nameSize: number): number => {
      const name = memory().text(nameAt, nameSize);
      if (name === undefined) return BAD_MEMORY;
      return vm.context().foreignFunction(name);
    },
    pthread_equal: (left: number, right: number): number => (left === right ? 1 : 0),
    emscripten_notify_memory_growth: (): number => 0,
  };
}

function sharedImports(vm: Vm): object {
  const { sharedData, queues } = vm.process;
  return {
    proxy_get_shared_data: (
      keyAt: number,
      keySize: number,
      pointerAt: number,
      sizeAt: number,
      casAt: number,
    ): number => {
      const key = vm.memory.text(keyAt, keySize);
      if (key === undefined) return BAD_MEMORY;
      const found = sharedData.get(vm.vmId, key);
      if (found === undefined) return Status.NotFound;
      return ok(vm.give(found.value, pointerAt, sizeAt) && vm.memory.setU32(casAt, found.cas));
    },
    proxy_set_shared_data: (
      keyAt: number,
      keySize: number,
      valueAt: number,
      valueSize: number,
      cas: number,
    ): number => {
      const key = vm.memory.text(keyAt, keySize);
      const value = vm.memory.copy(valueAt, valueSize);
      if (key === undefined || value === undefined) return BAD_MEMORY;
      return sharedData.set(vm.vmId, key, value, cas >>> 0);
    },
    proxy_register_shared_queue: (nameAt: number, nameSize: number, tokenAt: number): number => {
      const name = vm.memory.text(nameAt, nameSize);
      if (name === undefined) return BAD_MEMORY;
      const root = vm.context().root;
      const token = queues.register(vm.vmId, name, queue => vm.thread.post(() => root.queueReady(queue)));
      return ok(vm.memory.setU32(tokenAt, token));
    },
    proxy_resolve_shared_queue: (
      vmIdAt: number,
      vmIdSize: number,
      nameAt: number,
      nameSize: number,
      tokenAt: number,
    ): number => {
      const vmId = vm.memory.text(vmIdAt, vmIdSize);
      const name = vm.memory.text(nameAt, nameSize);
      if (vmId === undefined || name === undefined) return BAD_MEMORY;
      const token = queues.resolve(vmId === '' ? vm.vmId : vmId, name);
      return token === 0 ? Status.NotFound : ok(vm.memory.setU32(tokenAt, token));
    },
    proxy_dequeue_shared_queue: (token: number, pointerAt: number, sizeAt: number): number =>
      given(vm, queues.dequeue(token >>> 0), pointerAt, sizeAt),
    proxy_enqueue_shared_queue: (token: number, at: number, size: number): number => {
      const item = vm.memory.copy(at, size);
      return item === undefined ? BAD_MEMORY : queues.enqueue(token >>> 0, item);
    },
  };
}

function headerImports(vm: Vm): object {
  const change = (type: number, apply: (map: HeaderMap) => void): Status => {
    const context = vm.context();
    const map = context.mutableMap(type);
    if (map === undefined) return Status.BadArgument;
    apply(map);
    context.headersModified(type);
    return Status.Ok;
  };
  const keyed = (type: number, at: number, size: number, then: (key: string) => Status): Status => {
    if (type >>> 0 > MAP_TYPE_MAX) return Status.BadArgument;
    const key = vm.memory.text(at, size);
    return key === undefined ? BAD_MEMORY : then(key);
  };
  const put = (how: 'add' | 'set') => {
    return (type: number, keyAt: number, keySize: number, valueAt: number, valueSize: number): number =>
      keyed(type, keyAt, keySize, key => {
        const value = vm.memory.text(valueAt, valueSize);
        return value === undefined ? BAD_MEMORY : change(type, map => map[how](key, value));
      });
  };
  return {
    proxy_add_header_map_value: put('add'),
    proxy_replace_header_map_value: put('set'),
    proxy_get_header_map_value: (
      type: number,
      keyAt: number,
      keySize: number,
      pointerAt: number,
      sizeAt: number,
    ): number =>
      keyed(type, keyAt, keySize, key => {
        const context = vm.context();
        const map = context.readableMap(type);
        if (map === undefined) return context.logging ? Status.NotFound : Status.BadArgument;
        const value = map.get(key);
        return value === undefined ? Status.NotFound : ok(vm.give(Buffer.from(value, 'latin1'), pointerAt, sizeAt));
      }),
    proxy_remove_header_map_value: (type: number, keyAt: number, keySize: number): number =>
      keyed(type, keyAt, keySize, key => change(type, map => map.remove(key))),
    proxy_get_header_map_pairs: (type: number, pointerAt: number, sizeAt: number): number => {
      if (type >>> 0 > MAP_TYPE_MAX) return Status.BadArgument;
      return ok(givePairs(vm, vm.context().readableMap(type)?.pairs() ?? [], pointerAt, sizeAt));
    },
    proxy_set_header_map_pairs: (type: number, at: number, size: number): number => {
      if (type >>> 0 > MAP_TYPE_MAX) return Status.BadArgument;
      const view = vm.memory.view(at, size);
      if (view === undefined) return BAD_MEMORY;
      const pairs = decodePairs(view);
      if (pairs === undefined) vm.process.malformedPairs++;
      return change(type, map => map.rebuild(pairs ?? []));
    },
    proxy_get_header_map_size: (type: number, at: number): number => {
      if (type >>> 0 > MAP_TYPE_MAX) return Status.BadArgument;
      const map = vm.context().mutableMap(type);
      return map === undefined ? Status.BadArgument : ok(vm.memory.setU32(at, map.byteSize()));
    },
  };
}

/** Like `give`, without a copy in between: header maps are the largest and most frequent values. */
function givePairs(vm: Vm, pairs: readonly Pair[], pointerAt: number, sizeAt: number): boolean {
  if (pairs.length === 0) return vm.give(new Uint8Array(0), pointerAt, sizeAt);
  const size = encodedPairsSize(pairs);
  const pointer = vm.allocate(size);
  const target = pointer === 0 ? undefined : vm.memory.view(pointer, size);
  if (target === undefined) return false;
  encodePairsInto(pairs, target);
  return vm.memory.setU32(pointerAt, pointer) && vm.memory.setU32(sizeAt, size);
}

function bufferImports(vm: Vm): object {
  return {
    proxy_get_buffer_status: (type: number, lengthAt: number, flagsAt: number): number => {
      if (type >>> 0 > BUFFER_TYPE_MAX) return Status.BadArgument;
      const buffer = vm.context().buffer(type);
      if (buffer === undefined) return Status.NotFound;
      return ok(vm.memory.setU32(lengthAt, buffer.length) && vm.memory.setU32(flagsAt, 0));
    },
    proxy_get_buffer_bytes: (
      type: number,
      start: number,
      length: number,
      pointerAt: number,
      sizeAt: number,
    ): number => {
      if (type >>> 0 > BUFFER_TYPE_MAX) return Status.BadArgument;
      const buffer = vm.context().buffer(type);
      if (buffer === undefined) return Status.NotFound;
      const from = start >>> 0;
      return ok(vm.give(buffer.subarray(from, from + (length >>> 0)), pointerAt, sizeAt));
    },
    proxy_set_buffer_bytes: (type: number, start: number, length: number, at: number, size: number): number => {
      if (type >>> 0 > BUFFER_TYPE_MAX) return Status.BadArgument;
      const bytes = vm.memory.copy(at, size);
      return bytes === undefined ? BAD_MEMORY : vm.context().setBuffer(type, start >>> 0, length >>> 0, bytes);
    },
  };
}

type Twelve = [
  ...[number, number, number, number, number, number],
  ...[number, number, number, number, number, number],
];

function calloutImports(vm: Vm): object {
  const grpcMethod = (args: number[]): { service: Buffer; path: string; metadata: Pair[] } | undefined => {
    const [serviceAt = 0, serviceSize = 0, nameAt = 0, nameSize = 0, methodAt = 0, methodSize = 0, at = 0, size = 0] =
      args;
    const service = vm.memory.copy(serviceAt, serviceSize);
    const name = vm.memory.text(nameAt, nameSize);
    const method = vm.memory.text(methodAt, methodSize);
    const metadata = pairsAt(vm, at, size);
    if (service === undefined || name === undefined || method === undefined || metadata === undefined) return undefined;
    return { service, path: `/${name}/${method}`, metadata };
  };
  const token = (result: { token: number } | Status, at: number): Status =>
    typeof result === 'number' ? result : ok(vm.memory.setU32(at, result.token));
  return {
    proxy_http_call: (
      ...[uriAt, uriSize, headersAt, headersSize, bodyAt, bodySize, trailersAt, trailersSize, timeout, tokenAt]: [
        ...[number, number, number, number, number, number, number, number, number, number],
      ]
    ): number => {
      const cluster = vm.memory.text(uriAt, uriSize);
      const body = vm.memory.copy(bodyAt, bodySize);
      const headers = pairsAt(vm, headersAt, headersSize);
      const trailers = pairsAt(vm, trailersAt, trailersSize);
      if (cluster === undefined || body === undefined || headers === undefined || trailers === undefined)
        return BAD_MEMORY;
      const result = vm.context().root.httpCall({ cluster, headers, body, trailers, timeoutMs: timeout });
      return token(result, tokenAt);
    },
    proxy_grpc_call: (...args: Twelve): number => {
      const method = grpcMethod(args);
      const request = vm.memory.copy(args[8], args[9]);
      if (method === undefined || request === undefined) return BAD_MEMORY;
      return token(vm.context().root.grpc.call(method, request, args[10] >>> 0), args[11]);
    },
    proxy_grpc_stream: (...args: number[]): number => {
      const method = grpcMethod(args);
      return method === undefined ? BAD_MEMORY : token(vm.context().root.grpc.stream(method), args[8] ?? 0);
    },
    proxy_grpc_close: (id: number): number => vm.context().root.grpc.close(id >>> 0),
    proxy_grpc_cancel: (id: number): number => vm.context().root.grpc.cancel(id >>> 0),
    proxy_grpc_send: (id: number, at: number, size: number, end: number): number => {
      const message = vm.memory.copy(at, size);
      return message === undefined ? BAD_MEMORY : vm.context().root.grpc.send(id >>> 0, message, end !== 0);
    },
  };
}

function metricImports(vm: Vm): object {
  return {
    proxy_define_metric: (type: number, nameAt: number, nameSize: number, idAt: number): number => {
      const name = vm.memory.text(nameAt, nameSize);
      if (name === undefined) return BAD_MEMORY;
      const id = vm.metrics.define(type, name);
      return id === undefined ? Status.BadArgument : ok(vm.memory.setU32(idAt, id));
    },
    proxy_increment_metric: (id: number, offset: bigint): number => vm.metrics.increment(id >>> 0, offset),
    proxy_record_metric: (id: number, value: bigint): number => vm.metrics.record(id >>> 0, value),
    proxy_get_metric: (id: number, at: number): number => {
      const value = vm.metrics.get(id >>> 0);
      return typeof value === 'bigint' ? ok(vm.memory.setU64(at, value)) : value;
    },
  };
}

/** What host calls may ask of a context. The answers here are those of a context that has nothing. */
import { Status } from './abi.js';
import type { HeaderMap } from './header-map.js';
import type { Pair } from './pairs.js';
import type { RootContext } from './root-context.js';
import type { Vm } from './vm.js';

/** A reply made by the guest instead of the upstream. */
export interface LocalResponse {
  readonly code: number;
  /** Response code details, blanks replaced. */
  readonly details: string;
  readonly body: Buffer;
  readonly headers: readonly Pair[];
  /** gRPC status, -1 = none given. */
  readonly grpcStatus: number;
}

export abstract class Context {
  abstract readonly root: RootContext;

  constructor(
    readonly vm: Vm,
    readonly id: number,
  ) {
    vm.contexts.set(id, this);
  }

  /** In the access-log callback: other maps, and absent ones are no error. */
  get logging(): boolean {
    return false;
  }

  mutableMap(_type: number): HeaderMap | undefined {
    return undefined;
  }

  readableMap(_type: number): HeaderMap | undefined {
    return undefined;
  }

  headersModified(_type: number): void {}

  buffer(_type: number): Buffer | undefined {
    return undefined;
  }

  setBuffer(_type: number, _start: number, _length: number, _bytes: Buffer): Status {
    return Status.NotFound;
  }

  abstract property(path: readonly string[]): Buffer | undefined;

  setProperty(_path: string, _value: Buffer): Status {
    return Status.NotFound;
  }

  sendLocalResponse(_response: LocalResponse): void {}

  continueStream(_type: number): Status {
    return Status.Ok;
  }

  closeStream(_type: number): Status {
    return Status.Ok;
  }

  done(): Status {
    return this.root.finishDone();
  }

  foreignFunction(name: string): Status {
    this.vm.process.foreignCalls.push(name);
    return Status.NotFound;
  }
}

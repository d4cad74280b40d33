// Child processes that never outlive us and whose last words are kept.
import { spawn, type ChildProcess } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { createWriteStream } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** util-linux; lets the kernel end a child when its parent dies, however it dies. */
const SETPRIV = '/usr/bin/setpriv';
/** Output kept in memory for error messages, bytes; the log file has all of it. */
const TAIL_BYTES_MAX = 16384;

export interface ChildOptions {
  /** File that gets stdout and stderr. */
  logFile: string;
  env?: Record<string, string>;
  cwd?: string;
}

export class Child {
  private tail = '';
  private ended: { code: number | null; signal: NodeJS.Signals | null } | undefined;
  private readonly exit: Promise<void>;

  private constructor(
    readonly name: string,
    private readonly process: ChildProcess,
    logFile: string,
  ) {
    const log = createWriteStream(logFile, { flags: 'a' });
    const keep = (chunk: Buffer) => {
      log.write(chunk);
      this.tail = (this.tail + chunk.toString('latin1')).slice(-TAIL_BYTES_MAX);
    };
    process.stdout?.on('data', keep);
    process.stderr?.on('data', keep);
    this.exit = new Promise(done => {
      const end = (code: number | null, signal: NodeJS.Signals | null) => {
        this.ended ??= { code, signal };
        log.end();
        done();
      };
      process.once('exit', end);
      process.once('error', error => {
        keep(Buffer.from(`${name}: ${error.message}\n`));
        end(null, null);
      });
    });
  }

  static start(name: string, command: string, args: string[], options: ChildOptions): Child {
    const [file, argv] = tied(command, args);
    const child = spawn(file, argv, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      ...(options.cwd ? { cwd: options.cwd } : {}),
    });
    return new Child(name, child, options.logFile);
  }

  get pid(): number {
    if (this.process.pid === undefined) throw new Error(`${this.name} was not started: ${this.lastWords()}`);
    return this.process.pid;
  }

  get running(): boolean {
    return this.ended === undefined;
  }

  /** How it ended, e.g. `exit 1` or `SIGKILL`; undefined while it runs. */
  get end(): string | undefined {
    if (!this.ended) return undefined;
    return this.ended.signal ?? `exit ${this.ended.code ?? '?'}`;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.process.kill(signal);
  }

  async exited(): Promise<void> {
    await this.exit;
  }

  /** SIGTERM, and SIGKILL if it still runs after `graceMs`. Resolves when it is gone. */
  async stop(graceMs: number): Promise<void> {
    this.signal('SIGTERM');
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs);
    await this.exit;
    clearTimeout(timer);
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.exit;
  }

  /** The last lines it wrote. */
  lastWords(lines = 8): string {
    return this.tail.trimEnd().split('\n').slice(-lines).join('\n');
  }

  /** All of its recent output that is kept in memory. */
  recentOutput(): string {
    return this.tail;
  }
}

function tied(command: string, args: string[]): [string, string[]] {
  try {
    accessSync(SETPRIV, constants.X_OK);
    return [SETPRIV, ['--pdeathsig', 'KILL', '--', command, ...args]];
  } catch {
    return [command, args];
  }
}

/**
 * Asks again and again until `probe` answers something other than undefined.
 *
 * @throws Error naming `what` after `timeoutMs`, with the last error of `probe` if it threw
 */
export async function until<T>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | undefined> | T | undefined,
  everyMs = 50,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      throw new Error(`${what}: not within ${timeoutMs} ms`, last === undefined ? {} : { cause: last });
    }
    await sleep(everyMs);
  }
}

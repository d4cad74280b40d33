// What all commands that ask the collector share: options, the client's life, and the form of the answer.

import { InvalidArgumentError, Option, type Command } from 'commander';
import { Client, collectorAddress, DEFAULT_COLLECTOR } from './client.js';
import type { Io } from './io.js';
import { securityOf, type SecurityOptions } from './security.js';

export interface ReadOptions extends SecurityOptions {
  readonly output: 'table' | 'json';
  readonly collector?: string;
}

export interface Asking<T> {
  readonly client: Client;
  readonly io: Io;
  readonly options: T & ReadOptions;
}

/** Adds `-o`, in this place of the help. */
export function withOutput(command: Command): Command {
  return command.addOption(
    new Option('-o, --output <form>', 'form of the answer').choices(['table', 'json']).default('table'),
  );
}

/** Adds `-o`, `--collector` and how to speak to it, in this place of the help. */
export function withReadOptions(command: Command): Command {
  return withOutput(command)
    .option('--collector <host:port>', `collector to ask (MESHPULSE_COLLECTOR, else ${DEFAULT_COLLECTOR})`)
    .option('--token-file <file>', 'file with the token to ask with (else MESHPULSE_TOKEN, the token itself)')
    .option('--ca <file>', 'CA of the collector, PEM (MESHPULSE_CA, else those of the system); asks by TLS')
    .option('--cert <file>', 'certificate to ask with, PEM (MESHPULSE_CERT)')
    .option('--key <file>', 'its private key, PEM (MESHPULSE_KEY)')
    .option('--plaintext', 'ask in the clear also elsewhere than on loopback');
}

/** Lets the command ask: `work` gets a client, its options, and its words in their order. */
export function thatAsks<T extends ReadOptions>(
  command: Command,
  io: Io,
  done: (exitCode: number) => void,
  work: (asking: Asking<T>, ...words: string[]) => Promise<number>,
): void {
  withReadOptions(command).action(async (...all: unknown[]) => {
    // Words, then options, then the command itself.
    const [options] = all.slice(-2) as [T];
    done(await asking(io, options, at => work(at, ...(all.slice(0, -2) as string[]))));
  });
}

/**
 * Runs a command with a client that is closed afterwards.
 *
 * @returns the exit code
 */
export async function asking<T extends object>(
  io: Io,
  options: T & ReadOptions,
  work: (asking: Asking<T>) => Promise<number>,
): Promise<number> {
  const address = collectorAddress(options.collector, process.env);
  let staleMs = 0;
  const client = new Client(address, securityOf(address, options, process.env), ms => {
    if (staleMs === 0) io.note(staleNotice(address, ms));
    staleMs = ms;
  });
  try {
    return await work({ client, io, options });
  } finally {
    client.close();
  }
}

/** An answer is only as good as what the collector has heard. */
const staleNotice = (address: string, ms: number): string =>
  `note: the collector at ${address} has not heard its store for ${(ms / 1000).toFixed(1)} s; ` +
  'it answers from memory, and what others took since is missing\n';

/** One answer as indented JSON. */
export const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** One object of many, a line each. */
export const jsonLine = (value: unknown): string => `${JSON.stringify(value)}\n`;

/** Parser of an option that takes a whole number within a range. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return text => {
    const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(number >= min && number <= max)) throw new InvalidArgumentError(`It must be ${min} to ${max}.`);
    return number;
  };
}

// Tokens of a Kubernetes cluster: its API says whose they are (authentication.k8s.io/v1 TokenReview).

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import type { TokenReviewSettings } from './settings.js';
import { Unavailable } from '../errors.js';
import type { Logger } from '../log.js';

/** The API has this long to answer, ms, in at most so many bytes. */
const TIMEOUT_MS = 3000;
const ANSWER_BYTES_MAX = 256 * 1024;

/** Questions to the API at once, at most: strangers can make up tokens faster than it answers. */
export const ASKING_MAX = 16;

/** How long an answer holds, ms: a token that is taken back works for so long. And how many are remembered. */
export const YES_MS = 60_000;
export const NO_MS = 10_000;
const ANSWERS_MAX = 10_000;

/** Where a pod finds what it needs to ask its cluster. */
const IN_CLUSTER = '/var/run/secrets/kubernetes.io/serviceaccount';

/** As the cluster knows them. */
export interface Reviewed {
  readonly user: string;
  readonly groups: readonly string[];
  /** Of the pod that a service account's token is bound to. */
  readonly node?: string;
}

/** Says whose a token is; undefined = nobody's. @throws Unavailable when it cannot be asked now */
export interface TokenSource {
  review(token: string): Promise<Reviewed | undefined>;
}

interface Answer {
  readonly untilMs: number;
  readonly who: Reviewed | undefined;
}

export class TokenReview implements TokenSource {
  /** By hash: tokens are not kept. Oldest first. */
  private readonly answers = new Map<string, Answer>();
  private readonly asking = new Map<string, Promise<Reviewed | undefined>>();

  constructor(
    private readonly settings: TokenReviewSettings,
    private readonly nowMs: () => number,
    private readonly log: Logger,
  ) {}

  async review(token: string): Promise<Reviewed | undefined> {
    const name = createHash('sha256').update(token).digest('base64');
    const known = this.answers.get(name);
    if (known !== undefined && known.untilMs > this.nowMs()) return known.who;
    const under = this.asking.get(name);
    if (under !== undefined) return under;
    if (this.asking.size >= ASKING_MAX)
      throw new Unavailable('too many tokens are being reviewed; try again in a second');
    const asked = this.ask(token).finally(() => this.asking.delete(name));
    this.asking.set(name, asked);
    const who = await asked;
    this.answers.delete(name);
    this.answers.set(name, { who, untilMs: this.nowMs() + (who === undefined ? NO_MS : YES_MS) });
    if (this.answers.size > ANSWERS_MAX) this.answers.delete(this.answers.keys().next().value!);
    return who;
  }

  private async ask(token: string): Promise<Reviewed | undefined> {
    try {
      return readAnswer(await post(this.settings, token), this.settings.audience);
    } catch (error) {
      const why = (error as Error).message;
      this.log.warn({ why }, 'the Kubernetes API could not review a token; those who bring one have to wait');
      throw new Unavailable('tokens cannot be reviewed now; try again in a few seconds');
    }
  }
}

function post(settings: TokenReviewSettings, token: string): Promise<unknown> {
  const { url, ca, bearer } = endpointOf(settings);
  const body = JSON.stringify({
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token, ...(settings.audience === '' ? {} : { audiences: [settings.audience] }) },
  });
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
  };
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const asked = request(url, { method: 'POST', headers, signal, ...(ca === undefined ? {} : { ca }) }, answer => {
      const chunks: Buffer[] = [];
      let size = 0;
      answer.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > ANSWER_BYTES_MAX) asked.destroy(new Error(`its answer is longer than ${ANSWER_BYTES_MAX} bytes`));
        else chunks.push(chunk);
      });
      answer.on('error', reject);
      answer.on('end', () => {
        if (answer.statusCode !== 200 && answer.statusCode !== 201) {
          reject(new Error(`it answered ${answer.statusCode}; may the collector create tokenreviews?`));
          return;
        }
        try {
          resolve(JSON.parse(Buffer.concat(chunks).toString('utf8')));
        } catch {
          reject(new Error('its answer is not JSON'));
        }
      });
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

/** Read anew each time: a pod's own token changes every hour. */
function endpointOf({ url, ca, token }: TokenReviewSettings): { url: URL; ca?: Buffer; bearer?: string } {
  const inCluster = url === 'in-cluster';
  const { KUBERNETES_SERVICE_HOST: host = '', KUBERNETES_SERVICE_PORT: port = '443' } = process.env;
  if (inCluster && host === '') throw new Error('KUBERNETES_SERVICE_HOST is not set: this is no pod');
  const base = inCluster ? `https://${host.includes(':') ? `[${host}]` : host}:${port}` : url;
  const caPath = ca ?? (inCluster ? `${IN_CLUSTER}/ca.crt` : undefined);
  const tokenPath = token ?? (inCluster ? `${IN_CLUSTER}/token` : undefined);
  return {
    url: new URL('/apis/authentication.k8s.io/v1/tokenreviews', base),
    ...(caPath === undefined ? {} : { ca: readFileSync(caPath) }),
    ...(tokenPath === undefined ? {} : { bearer: readFileSync(tokenPath, 'utf8').trim() }),
  };
}

const NODE_NAME = 'authentication.kubernetes.io/node-name';

/** @throws Error when the answer is not one */
export function readAnswer(answer: unknown, audience: string): Reviewed | undefined {
  const status = field(answer, 'status');
  if (typeof status !== 'object' || status === null) throw new Error('its answer has no status');
  if (field(status, 'authenticated') !== true) return undefined;
  // A server that knows nothing of audiences takes tokens that are meant for others.
  if (audience !== '' && !texts(field(status, 'audiences')).includes(audience)) return undefined;
  const user = field(status, 'user');
  const username = field(user, 'username');
  if (typeof username !== 'string' || username === '') throw new Error('its answer names no user');
  const node = texts(field(field(user, 'extra'), NODE_NAME));
  return { user: username, groups: texts(field(user, 'groups')), ...(node.length === 1 ? { node: node[0]! } : {}) };
}

const field = (of: unknown, name: string): unknown =>
  typeof of === 'object' && of !== null && Object.hasOwn(of, name) ? (of as Record<string, unknown>)[name] : undefined;

const texts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];

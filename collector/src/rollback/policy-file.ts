// The policy file: YAML, taken whole or refused whole, with the line at fault. Pure.

import { isMap, isScalar, isSeq, LineCounter, parseDocument, type Document, type Node, type ParsedNode } from 'yaml';
import { near } from '../near.js';
import { isScope, MODES, SCOPE_GRAMMAR, type Mode } from './modes.js';
import type { NamedStep, Policy } from './policy.js';

/** Bounds of the file. */
export const POLICY_BYTES_MAX = 1024 * 1024;
const STEPS_MAX = 1000;
const LIST_MAX = 1000;
const KINDS_MAX = 100;

export const TTL_MS = { default: 30_000, min: 1000, max: 300_000 };

/** A fault in the file. The message begins with `line N: ` and names field, value and range. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError';
}

export const DEFAULT_POLICY: Policy = {
  mode: 'observe',
  ttlMs: TTL_MS.default,
  learn: { enabled: true, budgetRatio: 0.2, budgetMin: 10 },
  declined: { http: new Set(), grpc: new Set() },
  steps: [],
  never: new Set(),
  safe: new Set(),
  scopes: [],
};

/** @throws PolicyError */
export function parsePolicy(text: string): Policy {
  if (Buffer.byteLength(text) > POLICY_BYTES_MAX) {
    throw new PolicyError(`line 1: the file has more than ${POLICY_BYTES_MAX} bytes`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const fault = document.errors[0];
  if (fault !== undefined) {
    throw new PolicyError(
      `line ${lines.linePos(fault.pos[0]).line}: ${fault.message.split('\n')[0]!.split(' at line')[0]!}`,
    );
  }
  return new PolicyReader(document, lines).read();
}

type At = Node | ParsedNode | null | undefined;

class PolicyReader {
  constructor(
    private readonly document: Document.Parsed,
    private readonly lines: LineCounter,
  ) {}

  read(): Policy {
    const { contents } = this.document;
    if (contents === null) return DEFAULT_POLICY;
    const fields = this.map(contents, 'the policy', [
      'mode',
      'ttl',
      'learn',
      'declined',
      'steps',
      'never',
      'safe',
      'scopes',
    ]);
    const learn = this.map(fields.get('learn'), 'learn', ['enabled', 'budgetRatio', 'budgetMin']);
    const base = DEFAULT_POLICY;
    return {
      mode: this.mode(fields.get('mode'), 'mode') ?? base.mode,
      ttlMs: this.time(fields.get('ttl'), 'ttl') ?? base.ttlMs,
      learn: {
        enabled: this.flag(learn.get('enabled'), 'learn.enabled') ?? base.learn.enabled,
        budgetRatio: this.ratio(learn.get('budgetRatio'), 'learn.budgetRatio') ?? base.learn.budgetRatio,
        budgetMin: this.whole(learn.get('budgetMin'), 'learn.budgetMin', 0, 100_000) ?? base.learn.budgetMin,
      },
      declined: this.declined(fields.get('declined')),
      steps: this.list(fields.get('steps'), 'steps', STEPS_MAX).map((node, at) => this.step(node, `steps[${at}]`)),
      never: this.operations(fields.get('never'), 'never'),
      safe: this.operations(fields.get('safe'), 'safe'),
      scopes: this.list(fields.get('scopes'), 'scopes', LIST_MAX).map((node, at) => this.scope(node, `scopes[${at}]`)),
    };
  }

  private step(node: At, name: string): NamedStep {
    const fields = this.map(node, name, ['service', 'operation', 'kinds', 'failures', 'mode', 'budgetRatio']);
    const required = (field: string): string =>
      this.text(fields.get(field) ?? node, `${name}.${field}`, !fields.has(field));
    return {
      service: required('service'),
      operation: required('operation'),
      kinds: this.list(fields.get('kinds'), `${name}.kinds`, KINDS_MAX).map(kind => this.text(kind, `${name}.kinds`)),
      failures: this.whole(fields.get('failures'), `${name}.failures`, 1, 100),
      mode: this.mode(fields.get('mode'), `${name}.mode`),
      budgetRatio: this.ratio(fields.get('budgetRatio'), `${name}.budgetRatio`) ?? 1,
      line: this.lineOf(node),
    };
  }

  private scope(node: At, name: string): Policy['scopes'][number] {
    const fields = this.map(node, name, ['scope', 'mode']);
    const scope = this.text(fields.get('scope') ?? node, `${name}.scope`, !fields.has('scope'));
    if (!isScope(scope)) throw this.fault(fields.get('scope'), `${name}.scope`, scope, SCOPE_GRAMMAR);
    const mode = this.mode(fields.get('mode'), `${name}.mode`);
    if (mode === undefined) throw this.fault(node, `${name}.mode`, undefined, MODES.join(', '));
    return { scope, mode };
  }

  /** `402` or `grpc 9`. */
  private declined(node: At): Policy['declined'] {
    const http = new Set<number>();
    const grpc = new Set<number>();
    for (const item of this.list(node, 'declined', LIST_MAX)) {
      const text = String(this.scalar(item, 'declined', 'a code'));
      const match = /^(grpc )?(\d{1,3})$/.exec(text);
      const code = Number(match?.[2]);
      const good = match?.[1] === undefined ? code >= 400 && code < 500 : code >= 1 && code <= 16;
      if (!good) throw this.fault(item, 'declined', text, '400 to 499, or `grpc 1` to `grpc 16`');
      (match?.[1] === undefined ? http : grpc).add(code);
    }
    return { http, grpc };
  }

  private operations(node: At, name: string): Set<string> {
    return new Set(
      this.list(node, name, LIST_MAX).map(item => {
        const text = this.text(item, name);
        if (!/^\S+ \S/.test(text))
          throw this.fault(item, name, text, '`service OPERATION`, like `payment.shop POST /refund`');
        return text;
      }),
    );
  }

  private map(node: At, name: string, allowed: readonly string[]): Map<string, Node> {
    const fields = new Map<string, Node>();
    if (node === undefined || node === null) return fields;
    if (!isMap(node)) throw this.fault(node, name, node.toJSON(), `a map of ${allowed.join(', ')}`);
    for (const { key, value } of node.items) {
      const field = isScalar(key) ? String(key.value) : '';
      if (!allowed.includes(field)) {
        const close = near(field, allowed)[0];
        const hint = close === undefined ? `it may be ${allowed.join(', ')}` : `did you mean ${close}?`;
        throw new PolicyError(`line ${this.lineOf(key as Node)}: ${name} has no field ${field}; ${hint}`);
      }
      if (value !== null && !(isScalar(value) && value.value === null)) fields.set(field, value as Node);
    }
    return fields;
  }

  private list(node: At, name: string, max: number): Node[] {
    if (node === undefined || node === null) return [];
    if (!isSeq(node)) throw this.fault(node, name, node.toJSON(), 'a list');
    if (node.items.length > max) throw this.fault(node, `${name}, its length,`, node.items.length, `at most ${max}`);
    return node.items as Node[];
  }

  private scalar(node: At, name: string, allowed: string): string | number | boolean {
    const value: unknown = isScalar(node) ? node.value : undefined;
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw this.fault(node, name, node?.toJSON(), allowed);
    }
    return value;
  }

  private text(node: At, name: string, missing = false): string {
    const value = missing ? '' : this.scalar(node, name, 'a text');
    if (typeof value !== 'string' || value === '' || value.length > 400) {
      throw this.fault(node, name, missing ? undefined : value, 'a text of 1 to 400 characters');
    }
    return value;
  }

  private mode(node: At, name: string): Mode | undefined {
    if (node === undefined) return undefined;
    // YAML 1.1 readers take a bare `off` for false; so does this one, kindly.
    const value = this.scalar(node, name, MODES.join(', '));
    const mode = value === false ? 'off' : MODES.find(one => one === value);
    if (mode === undefined) throw this.fault(node, name, value, MODES.join(', '));
    return mode;
  }

  private flag(node: At, name: string): boolean | undefined {
    if (node === undefined) return undefined;
    const value = this.scalar(node, name, 'true or false');
    if (typeof value !== 'boolean') throw this.fault(node, name, value, 'true or false');
    return value;
  }

  private ratio(node: At, name: string): number | undefined {
    if (node === undefined) return undefined;
    const value = this.scalar(node, name, '0 to 1');
    if (typeof value !== 'number' || !(value >= 0 && value <= 1)) throw this.fault(node, name, value, '0 to 1');
    return value;
  }

  private whole(node: At, name: string, min: number, max: number): number | undefined {
    if (node === undefined) return undefined;
    const value = this.scalar(node, name, `${min} to ${max}`);
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw this.fault(node, name, value, `a whole number, ${min} to ${max}`);
    }
    return value;
  }

  private time(node: At, name: string): number | undefined {
    if (node === undefined) return undefined;
    const value = String(this.scalar(node, name, 'a time'));
    const match = /^(\d{1,9})(ms|s|m)$/.exec(value);
    const ms =
      match === null ? Number.NaN : Number(match[1]) * { ms: 1, s: 1000, m: 60_000 }[match[2] as 'ms' | 's' | 'm'];
    if (!(ms >= TTL_MS.min && ms <= TTL_MS.max)) throw this.fault(node, name, value, '1s to 300s, written like 30s');
    return ms;
  }

  private fault(node: At, field: string, value: unknown, allowed: string): PolicyError {
    const seen = value === undefined ? 'is missing' : `is ${JSON.stringify(value)}`;
    return new PolicyError(`line ${this.lineOf(node)}: ${field} ${seen}, must be ${allowed}`);
  }

  private lineOf(node: At): number {
    const start = node?.range?.[0];
    return start === undefined ? 1 : this.lines.linePos(start).line;
  }
}

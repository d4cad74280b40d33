// A learned graph as an indented tree. Pure.
//
// A graph is no tree: a step that was drawn already is named again but not drawn again, and a call that
// leads back to a step above ends there.

import type { Flow, FlowEdge, FlowStep } from './messages.js';
import { span } from './times.js';

interface Line {
  readonly left: string;
  readonly facts: string;
}

const keyOf = (service: string, operation: string): string => `${service} ${operation}`;

/** Lines below the heading: order, callee, then how often, how long, and how often it failed. */
export function tree(flow: Flow): string {
  const steps = new Map(flow.steps.map(step => [keyOf(step.service, step.operation), step]));
  const calls = new Map<string, FlowEdge[]>();
  for (const edge of flow.edges) {
    const from = keyOf(edge.fromService, edge.fromOperation);
    calls.set(from, [...(calls.get(from) ?? []), edge]);
  }
  const drawn = new Set<string>();
  const lines = branches(flow.kind, '', new Set([flow.kind]));
  const apart = [...steps.keys()].filter(key => key !== flow.kind && !drawn.has(key));
  if (apart.length > 0) {
    lines.push({ left: 'seen, but not below the entry (their caller was not reported):', facts: '' });
    for (const key of apart) {
      if (drawn.has(key)) continue;
      drawn.add(key);
      lines.push({ left: `   ${key}`, facts: stepFacts(steps.get(key)) }, ...branches(key, '   ', new Set([key])));
    }
  }
  return layout(lines);

  function branches(from: string, indent: string, above: ReadonlySet<string>): Line[] {
    drawn.add(from);
    const edges = [...(calls.get(from) ?? [])].sort((a, b) => a.order - b.order);
    return edges.flatMap((edge, at) => {
      const to = keyOf(edge.toService, edge.toOperation);
      const last = at === edges.length - 1;
      const again = above.has(to) ? ' (back to above)' : drawn.has(to) && calls.has(to) ? ' (drawn above)' : '';
      const left = `${indent}${last ? '└─ ' : '├─ '}${edge.order} ${to}${again}`;
      const below = again === '' ? branches(to, indent + (last ? '   ' : '│  '), new Set([...above, to])) : [];
      return [{ left, facts: edgeFacts(edge, steps.get(to)) }, ...below];
    });
  }
}

function edgeFacts(edge: FlowEdge, to: FlowStep | undefined): string {
  const facts = [
    ...(edge.parallel ? ['parallel'] : []),
    ...(edge.callsMean > 1 ? [`x${round(edge.callsMean)}`] : []),
    ...(edge.attemptsMean > 1 ? [`${round(edge.attemptsMean)} attempts`] : []),
    ...(to?.external === true ? ['external'] : []),
    ...(edge.failures === '0' ? [] : [`${edge.failures} failed`]),
  ];
  return [stepFacts(to), facts.join(', ')].filter(text => text !== '').join('   ');
}

const stepFacts = (step: FlowStep | undefined): string =>
  step === undefined ? '' : `p50 ${span(step.durationMsP50)}, p99 ${span(step.durationMsP99)}`;

/** At most two digits behind the point, no zeros at the end. */
const round = (value: number): string => String(Math.round(value * 100) / 100);

function layout(lines: readonly Line[]): string {
  const width = Math.max(0, ...lines.filter(line => line.facts !== '').map(line => line.left.length));
  return lines.map(({ left, facts }) => `${facts === '' ? left : `${left.padEnd(width)}   ${facts}`}\n`).join('');
}

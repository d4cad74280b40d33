/** A replica that has too many streams asks some of them to go elsewhere. */
import assert from 'node:assert/strict';
import { CUID, hello, type Plain } from '../ingest-support.js';
import { Fleet } from './support.js';

const STREAMS = 12;

describe('streams of two replicas', function () {
  this.timeout(30_000);
  let fleet: Fleet;
  beforeEach(async () => (fleet = await Fleet.start(2)));
  afterEach(() => fleet.stop());

  /** Opens streams of different proxies; what each was told later comes into its list. */
  async function open(at: number, count: number): Promise<Plain[][]> {
    const { clients } = fleet.collectors[at]!;
    const told: Plain[][] = [];
    for (let i = 0; i < count; i++) {
      const stream = clients.report();
      const n = at * STREAMS + i;
      const cuid = `${n.toString(16).padStart(8, '0')}${CUID.slice(8)}`;
      await stream.ask({ hello: hello({ proxyId: `p${n}`, cuid, ip: `10.0.0.${n + 1}` }) });
      const replies: Plain[] = [];
      stream.call.on('data', (reply: Plain) => replies.push(reply));
      told.push(replies);
    }
    return told;
  }

  const asked = (streams: readonly Plain[][]): number =>
    streams.filter(replies => replies.some(({ hints }) => Number((hints as Plain | null)?.['drainMs'] ?? 0) > 0))
      .length;

  it('all at one: a quarter of what is too much is asked, each stream once, and not before the other is heard', async () => {
    const streams = await open(0, STREAMS);
    assert.equal(asked(streams), 0);
    await fleet.pass(10.5);
    assert.equal(asked(streams), Math.ceil((STREAMS / 2) * 0.25));
    await fleet.pass(10);
    assert.equal(asked(streams), 2 * Math.ceil((STREAMS / 2) * 0.25), 'they have not gone, so others are asked');
  });

  it('spread as chance has it: none is', async () => {
    const streams = [...(await open(0, STREAMS / 2 + 1)), ...(await open(1, STREAMS / 2 - 1))];
    await fleet.pass(21);
    assert.equal(asked(streams), 0);
  });

  it('and the other one dies: none is', async () => {
    await fleet.kill(1);
    await fleet.pass(4);
    const streams = await open(0, STREAMS);
    await fleet.pass(21);
    assert.equal(asked(streams), 0);
  });
});

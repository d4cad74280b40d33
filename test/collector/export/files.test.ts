import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { HourlyFiles } from '../../../collector/src/export/files.js';
import { isWhole, lengthOf, memberOf } from '../../../collector/src/export/members.js';

const HOUR_US = 3600e6;
/** 2026-11-21T19:00:00Z. */
const SEVEN_US = 1_795_287_600e6;

describe('hourly files', () => {
  let folder: string;
  let told: string[];

  const open = (bytesMax = 1e9, host = 'node-a.1'): Promise<HourlyFiles> =>
    HourlyFiles.open(
      { folder, host, bytesMax },
      {
        recovered: (_, bytes) => told.push(`recovered ${bytes}`),
        removed: (_, bytes) => told.push(`removed ${bytes}`),
      },
    );
  const names = async (): Promise<string[]> => (await readdir(folder)).sort();
  const line = (text: string): Buffer => memberOf(Buffer.from(`${text}\n`));
  const content = async (): Promise<string> => {
    const parts = await Promise.all((await names()).map(async name => gunzipSync(await readFile(join(folder, name)))));
    return Buffer.concat(parts).toString();
  };

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'meshpulse-files-'));
    told = [];
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('have their name when they are complete, and any gzip reads them', async () => {
    const files = await open();
    await files.append(line('a'), SEVEN_US);
    await files.append(line('b'), SEVEN_US + HOUR_US - 1);
    assert.match((await names())[0]!, /^events-2026-11-21T19-node-a\.1-\d{13}\.jsonl\.gz\.part$/);
    await files.append(line('c'), SEVEN_US + HOUR_US);
    assert.deepEqual(
      (await names()).map(name => name.replace(/\d{13}/, 'N')),
      ['events-2026-11-21T19-node-a.1-N.jsonl.gz', 'events-2026-11-21T20-node-a.1-N.jsonl.gz.part'],
    );
    await files.finish();
    assert.equal(await content(), 'a\nb\nc\n');
    assert.ok((await names()).every(name => name.endsWith('.gz')));
  });

  it('end with their hour when nothing comes', async () => {
    const files = await open();
    await files.append(line('a'), SEVEN_US);
    await files.turn(SEVEN_US + HOUR_US - 1);
    assert.ok((await names())[0]!.endsWith('.part'));
    await files.turn(SEVEN_US + HOUR_US);
    assert.ok((await names())[0]!.endsWith('.gz'));
  });

  it('lose nothing but the torn tail, wherever a crash cut the last part', async () => {
    const [first, second] = [line('first'), line('second, which is longer')];
    const whole = Buffer.concat([first, second]);
    const part = join(folder, 'events-2026-11-21T19-node-a.1-1795287600000.jsonl.gz.part');
    for (let cut = 0; cut <= whole.length; cut++) {
      for (const name of await names()) await rm(join(folder, name));
      await writeFile(part, whole.subarray(0, cut));
      await open();
      const expected = `${cut >= first.length ? 'first\n' : ''}${cut >= whole.length ? 'second, which is longer\n' : ''}`;
      assert.equal(await content(), expected, `cut at ${cut}`);
      assert.equal((await names()).length, expected === '' ? 0 : 1);
      assert.equal(
        told.at(-1),
        `recovered ${cut - (cut >= whole.length ? cut : cut >= first.length ? first.length : 0)}`,
      );
    }
  });

  it('give up a last part that has its length but not its content', async () => {
    const [first, second] = [line('first'), line('second')];
    second[second.length - 12]! ^= 0x55;
    await writeFile(
      join(folder, 'events-2026-11-21T19-node-a.1-1795287600000.jsonl.gz.part'),
      Buffer.concat([first, second]),
    );
    await open();
    assert.equal(await content(), 'first\n');
  });

  it('leave files of other hosts and other kinds alone', async () => {
    const others = ['events-2026-11-21T19-node-b-1795287600000.jsonl.gz.part', 'notes.txt'];
    for (const name of others) await writeFile(join(folder, name), 'x');
    await open(1);
    assert.deepEqual(await names(), others.sort());
    assert.deepEqual(told, []);
  });

  it('keep within their bytes: the oldest finished ones go', async () => {
    const member = line('x'.repeat(100));
    const files = await open(2.5 * member.length);
    for (let hour = 0; hour < 5; hour++) await files.append(member, SEVEN_US + hour * HOUR_US);
    await files.finish();
    assert.deepEqual(
      (await names()).map(name => name.slice(7, 20)),
      ['2026-11-21T22', '2026-11-21T23'],
    );
    assert.equal(files.size, 2 * member.length);
    assert.deepEqual(told, Array(3).fill(`removed ${member.length}`));
    const again = await open(1.5 * member.length);
    assert.equal(again.size, member.length);
  });

  it('go on when someone took the oldest away', async () => {
    const member = line('x');
    const files = await open(1.5 * member.length);
    await files.append(member, SEVEN_US);
    await files.finish();
    for (const name of await names()) await rm(join(folder, name));
    await files.append(member, SEVEN_US + HOUR_US);
    await files.finish();
    assert.equal((await names()).length, 1);
  });

  it('never use a name again, however often an hour begins', async () => {
    const seen = new Set<string>();
    for (let i = 0; i < 4; i++) {
      const files = await open();
      await files.append(line(String(i)), SEVEN_US);
      await files.finish();
      for (const name of await names()) seen.add(name);
      for (const name of await names()) await rm(join(folder, name));
    }
    assert.equal(seen.size, 4);
  });
});

describe('a member', () => {
  it('knows its length, and whether it is whole', () => {
    const member = memberOf(Buffer.from('hello'));
    assert.equal(lengthOf(member), member.length);
    assert.ok(isWhole(member));
    assert.equal(gunzipSync(member).toString(), 'hello');
    for (let at = 16; at < member.length; at++) {
      const bad = Buffer.from(member);
      bad[at]! ^= 1;
      assert.ok(!isWhole(bad), `byte ${at}`);
    }
    assert.equal(lengthOf(Buffer.from('not a member at all....')), undefined);
  });

  it('may be empty', () => assert.ok(isWhole(memberOf(Buffer.alloc(0)))));
});

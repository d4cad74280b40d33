// The collector's rollback policy, as somebody edits it while everything runs.
import { rename, writeFile } from 'node:fs/promises';

export type RollbackMode = 'off' | 'observe' | 'enforce';

export class PolicyFile {
  constructor(readonly path: string) {}

  /** `steps`: whose failure is the end. The file is replaced as a whole, as a ConfigMap is; resolves with its text. */
  async write(mode: RollbackMode, steps: { service: string; operation: string }[] = []): Promise<string> {
    const lines = steps.map(({ service, operation }) => `  - service: ${service}\n    operation: ${operation}\n`);
    const text = `mode: ${mode}\n${lines.length > 0 ? `steps:\n${lines.join('')}` : ''}`;
    await writeFile(`${this.path}.new`, text);
    await rename(`${this.path}.new`, this.path);
    return text;
  }
}

// One collector a data folder: two would write over each other's log.

import { createHash } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
import { createServer } from 'node:net';
import { ConfigError } from '../errors.js';

/**
 * Takes the folder for this process, and makes it if it is missing. The lock is a listening socket in
 * Linux's abstract namespace, named by the folder: the kernel lets go of it however the process ends,
 * so there is no stale lock to clean up.
 *
 * @param setting as it stands before the folder on a command line
 * @returns how to let go of it
 * @throws ConfigError when another process has it
 */
export async function lockFolder(folder: string, setting = '--data-dir '): Promise<() => void> {
  const path = await mkdir(folder, { recursive: true }).then(
    () => realpath(folder),
    () => folder,
  );
  if (process.platform !== 'linux') return () => undefined;
  const name = `\0meshpulse-${createHash('sha256').update(path).digest('hex').slice(0, 32)}`;
  const server = createServer(socket => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(name, resolve);
  }).catch((error: unknown) => {
    throw (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
      ? new ConfigError(`${setting}${folder} is in use by another collector; give each its own folder`)
      : error;
  });
  server.unref();
  return () => server.close();
}

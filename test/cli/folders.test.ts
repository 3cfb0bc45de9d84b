/** Folders that a user names, made by the command line and by the scripts. */

import { mkdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { makeFolder as makeByCli } from '../../cli/src/folders.js';
import { makeFolder as makeByScripts } from '../../scripts/system/files.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { rejectionOf } from '../support/outcomes.js';

for (const [name, makeFolder] of [
  ['the command line', makeByCli],
  ['the scripts', makeByScripts],
] as const) {
  describe(`a folder made by ${name}`, () => {
    let folder: TemporaryFolder;

    beforeEach(async () => {
      folder = await makeTemporaryFolder();
    });
    afterEach(() => folder.remove());

    it('comes with those above it, and says whether it is new', async () => {
      const path = join(folder.path, 'a', 'b', 'c');
      expect(await makeFolder(path, 0o700)).to.equal(true);
      expect(await makeFolder(path, 0o700)).to.equal(false);
      expect((await stat(path)).mode & 0o777).to.equal(0o700);
      expect(await makeFolder(`${folder.path}/a/d/.`, 0o700)).to.equal(true);
      expect((await stat(join(folder.path, 'a', 'd'))).isDirectory()).to.equal(true);
    });

    it('may be a link to one', async () => {
      const link = join(folder.path, 'link');
      await mkdir(join(folder.path, 'there'));
      await symlink(join(folder.path, 'there'), link);
      expect(await makeFolder(link, 0o700)).to.equal(false);
      expect(await makeFolder(join(link, 'below'), 0o700)).to.equal(true);
    });

    it('is made once by those who want it at the same time', async () => {
      const path = join(folder.path, 'x', 'y');
      const made = await Promise.all(Array.from({ length: 8 }, () => makeFolder(path, 0o700)));
      expect(made.filter((isNew) => isNew)).to.have.length(1);
    });

    it('cannot be where a file is, or where nothing can be made', async () => {
      const file = join(folder.path, 'file');
      await writeFile(file, '');
      for (const path of [file, join(file, 'below')]) {
        expect(await rejectionOf(makeFolder(path, 0o700)))
          .to.have.property('code')
          .that.is.oneOf(['EEXIST', 'ENOTDIR']);
      }
      if (process.platform !== 'linux') return;
      // The answer there is that the parent is missing.
      expect(await rejectionOf(makeFolder('/proc/nothing/below', 0o700))).to.have.property('code', 'ENOENT');
    });
  });
}

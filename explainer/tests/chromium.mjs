// A headless Chromium that goes nowhere by itself.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

export const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split(' ');

export const available = () => existsSync(EXECUTABLE);

/** A browser whose contexts are fresh. */
export function launch() {
  return chromium.launch({ executablePath: EXECUTABLE, args: FLAGS, headless: true });
}

export async function withBrowser(run, options = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'explainer-'));
  const context = await chromium.launchPersistentContext(folder, { executablePath: EXECUTABLE, args: FLAGS, headless: true, viewport: { width: 1280, height: 900 }, locale: 'en-US', ...options });
  try {
    await run(context);
  } finally {
    await context.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

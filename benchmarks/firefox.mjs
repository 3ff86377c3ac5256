// Opens a page in Firefox, and evaluates functions there: `node firefox.mjs FIREFOX ADDRESS [{code, arguments}, …]`.
// It prints what they return, as JSON. Packages: npm install puppeteer-core, in a folder above a copy of this file.
import puppeteer from 'puppeteer-core';

const [executablePath, address, steps] = process.argv.slice(2);
const browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless: true, protocolTimeout: 600_000 });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(300_000);
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(address, { waitUntil: 'domcontentloaded' });
  await page.waitForSelector('[data-testid=difference]');
  const found = [await page.evaluate('performance.now()')];
  for (const { code, arguments: given } of JSON.parse(steps)) found.push(await page.evaluate(`(${code})(${JSON.stringify(given)})`));
  console.log(JSON.stringify({ version: await browser.version(), found }));
} finally {
  await browser.close();
}

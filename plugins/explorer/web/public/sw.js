// The service worker of a site (onnxlens explore --site): the page opens without a connection once it was opened with one.
// Names of assets have a hash of their content, so they are taken from the store; everything else is asked for anew, and
// taken from the store without a connection. Large files of models are kept by the page itself, with their checksums.
const STORE = "onnxlens-page";
const isHashed = (url) => /\/assets\/[^/]+-[\w-]{8}\.\w+$/.test(url.pathname);
const isKeptByPage = (url) => /\/models\/\d+\/(model\.onnx_data|\w+\.onnx|tokenizer\w*\.json)$/.test(url.pathname);

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin || isKeptByPage(url)) return;
  event.respondWith(answer(request, url));
});

async function answer(request, url) {
  const store = await caches.open(STORE).catch(() => null); // storage may be blocked
  const kept = await store?.match(request);
  if (kept && isHashed(url)) return isolated(kept);
  try {
    const response = await fetch(request);
    if (response.ok) await store?.put(request, response.clone()).catch(() => {}); // or full
    return isolated(response);
  } catch (error) {
    if (kept) return isolated(kept);
    throw error;
  }
}

// With these two headers a browser lets the page compute with several threads. Many hosts cannot send them.
function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  const { status, statusText, body } = response;
  return new Response(body, { status, statusText, headers });
}

// Keeps the page's own files, so that it works without a network. Nothing else is stored.
// Pages of one origin share its caches: the name holds the folder, and a space, which no address has, ends it.
const OURS = `dermseg ${self.registration.scope} `;
const CACHE = `${OURS}__VERSION__`;
const FILES = __FILES__; // each with its hash
const POLICY = "__POLICY__"; // that of index.html, which does not hold in the page's threads: they have the pixels

self.addEventListener("install", (event) => {
  // None left over from an older page, all of one build: of half an upload, or where a proxy still has some of the
  // files before, nothing is kept, and the browser tries again at the next visit.
  const fresh = Object.entries(FILES).map(([file, integrity]) => new Request(file, { cache: "reload", integrity }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(fresh)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => {
  const drop = (names) => Promise.all(names.filter((n) => n.startsWith(OURS) && n !== CACHE).map((n) => caches.delete(n)));
  event.waitUntil(caches.keys().then(drop).then(() => self.clients.claim()));
});
self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== location.origin) return;
  event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const { origin, pathname } = new URL(request.url);
  const wanted = origin + pathname === `${self.registration.scope}index.html` ? "./" : request;
  const hit = await cache.match(wanted, { ignoreSearch: true, ignoreVary: true });
  if (!hit) return fetch(request);
  const thread = request.destination === "worker";
  // servers send index.html to ./ or the other way, and what was redirected is refused to a navigation
  if (!thread && !hit.redirected) return hit;
  const copy = new Response(hit.body, hit);
  if (thread) copy.headers.append("Content-Security-Policy", POLICY);
  return copy;
}

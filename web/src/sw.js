// Keeps the page's own files, so that it works without a network. Nothing else is stored.
// Pages of one origin share its caches: the name holds the folder, and a space, which no address has, ends it.
const OURS = `dermseg ${self.registration.scope} `;
const CACHE = `${OURS}__VERSION__`;
const FILES = __FILES__;
const POLICY = "__POLICY__"; // that of index.html, which does not hold in the page's threads: they have the pixels

self.addEventListener("install", (event) => {
  const fresh = FILES.map((file) => new Request(file, { cache: "reload" })); // none left over from an older page
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
  const hit = await cache.match(wanted, { ignoreSearch: true });
  if (!hit) return fetch(request);
  const thread = request.destination === "worker";
  // servers send index.html to ./ or the other way, and what was redirected is refused to a navigation
  if (!thread && !hit.redirected) return hit;
  const copy = new Response(hit.body, hit);
  if (thread) copy.headers.append("Content-Security-Policy", POLICY);
  return copy;
}

// Keeps the parts of a page that say data-live="/address" up to date while something moves. Without this
// file every page works; it only has to be reloaded by hand or by its <noscript> refresh.
const EVERY_MS = 1000;
const AFTER_ERROR_MS = 5000;

for (const part of document.querySelectorAll("[data-live]")) follow(part);
forget("note"); // what was just done is said once, not again after a reload
for (const picker of document.querySelectorAll("input[data-into]")) fill(picker);

function follow(part) {
  let held = false; // while a button inside is pressed, it must not be exchanged under the finger
  addEventListener("pointerdown", () => { held = true; });
  addEventListener("pointerup", () => setTimeout(() => { held = false; }));
  addEventListener("pointercancel", () => { held = false; });
  const tick = async () => {
    let wait = EVERY_MS;
    if (!document.hidden && !held && getSelection().isCollapsed) {
      try {
        const answer = await fetch(part.dataset.live);
        // Signed out, or what the page is about has come to its end: the whole page is due.
        if (answer.redirected) return location.reload();
        if (!answer.ok) throw new Error(answer.statusText);
        if (!held && swap(part, await answer.text())) return location.reload();
        part.classList.remove("is-stale");
      } catch {
        part.classList.add("is-stale");
        wait = AFTER_ERROR_MS;
      }
    }
    setTimeout(tick, wait);
  };
  setTimeout(tick, EVERY_MS);
}

// Exchanges the content and says whether the server called it done. What the answer brings for other places of the page goes there at
// the same moment, so that the page does not contradict itself. The focus stays where it was.
function swap(part, html) {
  const answer = document.createElement("template");
  answer.innerHTML = html;
  for (const news of answer.content.querySelectorAll("template[data-part]")) {
    news.remove();
    exchange(document.getElementById(news.dataset.part), news.content);
  }
  exchange(part, answer.content);
  const news = part.querySelector("[data-announce]")?.dataset.announce;
  const voice = document.getElementById("voice");
  if (news && voice && voice.textContent !== news) voice.textContent = news;
  const state = part.querySelector("[data-state]")?.dataset.state;
  return part.querySelector("[data-done]") !== null || state !== part.dataset.state;
}

function exchange(place, content) {
  if (!place) return;
  const was = place.contains(document.activeElement) ? document.activeElement : null;
  const links = was ? [...place.querySelectorAll("a, button")] : [];
  const at = links.indexOf(was);
  place.replaceChildren(content);
  if (!was) return;
  const same = was.id ? document.getElementById(was.id) : place.querySelectorAll("a, button")[at];
  same?.focus({ preventScroll: true });
}

function forget(name) {
  const here = new URL(location);
  if (!here.searchParams.has(name)) return;
  here.searchParams.delete(name);
  history.replaceState(null, "", here);
}

// A chosen file is read into the text field that the form sends.
function fill(picker) {
  picker.closest("[hidden]")?.removeAttribute("hidden");
  picker.addEventListener("change", async () => {
    if (!picker.files[0]) return;
    const { text, charset } = decode(new Uint8Array(await picker.files[0].arrayBuffer()));
    document.getElementById(picker.dataset.into).value = text;
    const said = picker.form.querySelector("[data-decoded]");
    if (!said) return;
    said.hidden = charset === "utf-8";
    if (said.hidden) return void (said.textContent = "");
    said.textContent = `The file is not UTF-8. It was read as ${charset}: look whether letters such as é are right before you import.`;
  });
}

// A file's text: UTF-16 where it begins with a byte order mark, UTF-8 where it is that, else what Western spreadsheets save.
function decode(bytes) {
  const charset = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-8";
  try {
    const text = new TextDecoder(charset, { fatal: true }).decode(bytes);
    return { text, charset: "utf-8" }; // a byte order mark leaves no doubt
  } catch {
    return { text: new TextDecoder("windows-1252").decode(bytes), charset: "windows-1252" };
  }
}

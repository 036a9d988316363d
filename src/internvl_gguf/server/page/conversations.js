/** Conversations kept in this browser (IndexedDB): texts, and pictures beside them within a bound. */

/**
 * @typedef {import("./pictures.js").Picture} Picture
 * @typedef {{id: string, role: "user", text: string, pictures: Picture[]}} Question
 * @typedef {"running" | "done" | "stopped" | "interrupted" | "failed"} State
 * @typedef {{id: string, role: "assistant", text: string, thought?: string, state: State, model: string, error?: string, isFinal?: boolean,
 *   notices: string[], finish?: string, progress?: import("./api.js").Progress, usage?: import("./api.js").Usage,
 *   timings?: import("./api.js").Timings}} Answer
 * @typedef {Question | Answer} Message `isFinal`: the same question would fail again
 * @typedef {{id: string, title: string, changed: number, removed?: boolean, messages: Message[]}} Conversation
 * @typedef {{text: string, pictures: Picture[]}} Draft
 */

/** Bytes of pictures that the page keeps at most. */
const PICTURES_BOUND = 512 * 1024 * 1024;

/** Why something was not kept, in two sentences. */
export class NotKept extends Error {}

/** What this browser keeps for the page. Every method throws `NotKept`. */
export class Conversations {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /** @returns {Promise<Conversations>} */
  static async open() {
    const database = await kept(() => {
      const opening = indexedDB.open("internvl", 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore("conversations", { keyPath: "id" });
        opening.result.createObjectStore("pictures", { keyPath: "id" }).createIndex("conversation", "conversation");
        opening.result.createObjectStore("drafts", { keyPath: "id" });
      };
      return result(opening);
    });
    return new Conversations(database);
  }

  /**
   * All conversations, the latest first, without their pictures' bytes.
   *
   * @returns {Promise<Conversation[]>}
   */
  async list() {
    const all = await kept(() => result(this.#store("conversations").getAll()));
    return all.sort((a, b) => b.changed - a.changed);
  }

  /**
   * @param {string} id
   * @returns {Promise<Conversation | undefined>} with its pictures
   */
  async load(id) {
    return kept(async () => {
      const conversation = await result(this.#store("conversations").get(id));
      const pictures = await result(this.#store("pictures").index("conversation").getAll(id));
      const blobs = new Map(pictures.map((picture) => [picture.id, picture.blob]));
      for (const message of conversation?.messages ?? [])
        for (const picture of message.pictures ?? [])
          picture.blob = blobs.get(picture.id) ?? new Blob([], { type: picture.type });
      return conversation;
    });
  }

  /**
   * Keep a conversation and the pictures it still has.
   *
   * @param {Conversation} conversation
   */
  async save(conversation) {
    await kept(async () => {
      const transaction = this.database.transaction(["conversations", "pictures"], "readwrite");
      const store = transaction.objectStore("pictures");
      const wanted = new Map(conversation.messages.flatMap(picturesOf).map((picture) => [picture.id, picture]));
      for (const id of await result(store.index("conversation").getAllKeys(conversation.id)))
        if (!wanted.delete(String(id))) store.delete(id);
      if (wanted.size) await this.#addPictures(store, conversation.id, [...wanted.values()]);
      transaction.objectStore("conversations").put({ ...conversation, messages: conversation.messages.map(withoutBytes) });
      await finished(transaction);
    });
  }

  /**
   * @param {IDBObjectStore} store
   * @param {string} conversation
   * @param {Picture[]} pictures
   */
  async #addPictures(store, conversation, pictures) {
    let bytes = pictures.reduce((sum, { blob }) => sum + blob.size, 0);
    for (const picture of await result(store.getAll())) bytes += picture.blob.size;
    if (bytes > PICTURES_BOUND) {
      store.transaction.abort();
      throw new NotKept("The page keeps 512 MB of pictures, and they are full. Delete older conversations.");
    }
    for (const { id, blob } of pictures) store.put({ id, conversation, blob });
  }

  /** @param {string} id */
  async remove(id) {
    await kept(async () => {
      const transaction = this.database.transaction(["conversations", "pictures", "drafts"], "readwrite");
      transaction.objectStore("conversations").delete(id);
      transaction.objectStore("drafts").delete(id);
      const pictures = transaction.objectStore("pictures");
      for (const picture of await result(pictures.index("conversation").getAllKeys(id))) pictures.delete(picture);
      await finished(transaction);
    });
  }

  /**
   * @param {string} id of the conversation, "new" for the next one
   * @returns {Promise<Draft | undefined>}
   */
  async loadDraft(id) {
    return kept(() => result(this.#store("drafts").get(id)));
  }

  /** @param {string} id @param {Draft} draft */
  async saveDraft(id, { text, pictures }) {
    await kept(async () => {
      const transaction = this.database.transaction("drafts", "readwrite");
      const store = transaction.objectStore("drafts");
      if (text || pictures.length) store.put({ id, text, pictures });
      else store.delete(id);
      await finished(transaction);
    });
  }

  /** @param {string} name */
  #store(name) {
    return this.database.transaction(name).objectStore(name);
  }
}

/**
 * Note a text where it is written before the page goes, which IndexedDB does not promise.
 *
 * @param {string} name
 * @param {string} text
 */
export function note(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    // Full, or nothing is kept: what IndexedDB has counts.
  }
}

/**
 * Take a noted text, which is then forgotten.
 *
 * @param {string} name
 * @returns {string | null}
 */
export function takeNote(name) {
  try {
    const text = localStorage.getItem(name);
    localStorage.removeItem(name);
    return text;
  } catch {
    return null;
  }
}

/** @param {Message} message @returns {Picture[]} */
function picturesOf(message) {
  return message.role === "user" ? message.pictures : [];
}

/** @param {Message} message */
function withoutBytes(message) {
  if (message.role !== "user") return message;
  return { ...message, pictures: message.pictures.map(({ blob, ...picture }) => picture) };
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

/**
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function kept(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof NotKept) throw error;
    if (error instanceof DOMException && error.name === "QuotaExceededError")
      throw new NotKept("The browser has no room left for this page. Delete older conversations.");
    throw new NotKept("The browser does not keep conversations for this page. They are gone when it is closed.");
  }
}

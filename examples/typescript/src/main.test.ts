import assert from "node:assert/strict";
import { test } from "node:test";
import { journeys, valuesIn } from "./main.js";

test("both journeys come to the same end, and only one shows values to the model", async () => {
  const { tutorial, handles } = await journeys();
  const done = ["flight BER-LIS booked and paid", "expense of 184.20 EUR for NV-4711 filed"];
  assert.deepEqual(tutorial.done, done);
  assert.deepEqual(handles.done, done);
  assert.equal(valuesIn(tutorial.transcript), 7);
  assert.equal(valuesIn(handles.transcript), 0);
  assert.equal(new Set(handles.transcript.match(/vkh_[0-9a-v]{16}_[0-9a-v]{40}/g)).size, 7);
  assert.match(handles.transcript, /"traveller":"<concealed by valetkey>"/);
  assert.match(handles.transcript, /assistant: Booked as NV-4711, and filed as RP-0815\.$/);
});

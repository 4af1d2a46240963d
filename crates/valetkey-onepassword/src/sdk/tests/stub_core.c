/* A core for tests that misbehaves on demand: the interface of contract 25, without anything behind it.
 * A request says what it is to come to by a word in it; otherwise the answer is the request itself. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef CONTRACT
#define CONTRACT 25
#endif
#ifndef INVOKE_CHECKSUM
#define INVOKE_CHECKSUM 29143
#endif

typedef struct { int32_t capacity, len; uint8_t *data; } Buffer;
typedef struct { int32_t len; const uint8_t *data; } Bytes;
typedef struct { int8_t code; Buffer error; } Status;
typedef void (*Wake)(size_t, int8_t);
typedef struct { char *request; int polls, cancelled; Wake wake; size_t waker; } Future;

/* Makes the bytes, and so the hash, each test's own: a library is loaded once, and its counts are shared. */
const char stub_core_test[] = TEST;

/* Futures that are not freed yet; answers that are not given back yet, or were without being wiped. */
static atomic_int futures, answers, unwiped, clients, released;

uint32_t ffi_op_uniffi_core_uniffi_contract_version(void) { return CONTRACT; }
uint16_t uniffi_op_uniffi_core_checksum_func_init_client(void) { return 45066; }
uint16_t uniffi_op_uniffi_core_checksum_func_invoke(void) { return INVOKE_CHECKSUM; }
uint16_t uniffi_op_uniffi_core_checksum_func_invoke_sync(void) { return 49373; }
#ifndef WITHOUT_RELEASE
uint16_t uniffi_op_uniffi_core_checksum_func_release_client(void) { return 57155; }
#endif

static Buffer copied(const void *bytes, int32_t len) {
  Buffer buffer = { len + 16, len, calloc(1, len + 16) };
  memcpy(buffer.data, bytes, len);
  /* Room that is left over may hold what was there before. */
  memset(buffer.data + len, 'x', 16);
  return buffer;
}

static Buffer answer(const char *text, int32_t len) {
  answers++;
  return copied(text, len);
}

Buffer ffi_op_uniffi_core_rustbuffer_from_bytes(Bytes bytes, Status *status) {
  (void)status;
  return copied(bytes.data, bytes.len);
}

void ffi_op_uniffi_core_rustbuffer_free(Buffer buffer, Status *status) {
  (void)status;
  answers--;
  for (int32_t i = 0; i < buffer.capacity; i++)
    if (buffer.data[i]) { unwiped++; break; }
  free(buffer.data);
}

static void *start(Buffer request) {
  char *text = calloc(1, request.len + 1);
  memcpy(text, request.data, request.len);
  free(request.data);
  if (strstr(text, "no-future")) { free(text); return NULL; }
  Future *future = calloc(1, sizeof *future);
  future->request = text;
  futures++;
  return future;
}

void *uniffi_op_uniffi_core_fn_func_init_client(Buffer request) { clients++; return start(request); }
void *uniffi_op_uniffi_core_fn_func_invoke(Buffer request) { return start(request); }
void uniffi_op_uniffi_core_fn_func_release_client(Buffer id, Status *status) {
  (void)status;
  free(id.data);
  released++;
}

typedef struct { Wake wake; size_t waker; } Waking;

static void *wake_maybe(void *argument) {
  Waking waking = *(Waking *)argument;
  free(argument);
  waking.wake(waking.waker, 1);
  return NULL;
}

void ffi_op_uniffi_core_rust_future_poll_rust_buffer(void *handle, Wake wake, size_t waker) {
  Future *future = handle;
  if (strstr(future->request, "never") && !future->cancelled) {
    future->wake = wake;
    future->waker = waker;
  } else if (strstr(future->request, "later") && future->polls++ < 3) {
    Waking *waking = malloc(sizeof *waking);
    *waking = (Waking){ wake, waker };
    pthread_t thread;
    pthread_create(&thread, NULL, wake_maybe, waking);
    pthread_detach(thread);
  } else {
    wake(waker, strstr(future->request, "odd-code") ? 9 : 0);
  }
}

void ffi_op_uniffi_core_rust_future_cancel_rust_buffer(void *handle) {
  Future *future = handle;
  future->cancelled = 1;
  if (future->wake) future->wake(future->waker, 0);
  future->wake = NULL;
}

void ffi_op_uniffi_core_rust_future_free_rust_buffer(void *handle) {
  Future *future = handle;
  free(future->request);
  free(future);
  futures--;
}

static Buffer error(const char *text) {
  uint32_t len = strlen(text);
  char bytes[256] = { 0, 0, 0, 1, len >> 24, len >> 16, len >> 8, len };
  memcpy(bytes + 8, text, len);
  return answer(bytes, len + 8);
}

Buffer ffi_op_uniffi_core_rust_future_complete_rust_buffer(void *handle, Status *status) {
  const char *request = ((Future *)handle)->request;
  Buffer none = { 0, 0, NULL };
  char text[128];
  if (strstr(request, "panic")) {
    status->code = 2;
    status->error = answer("it panicked", 11);
    return none;
  }
  if (strstr(request, "refuse")) {
    status->code = 1;
    status->error = error("a plain text");
    return none;
  }
  if (strstr(request, "bad-error")) {
    status->code = 1;
    status->error = answer("\0\0\0\1\0\0\0\xff" "short", 13);
    return none;
  }
  if (strstr(request, "unsound")) return (Buffer){ 1, 2, (uint8_t *)text };
  if (strstr(request, "empty")) return none;
  if (strstr(request, "counts")) {
    int len = snprintf(text, sizeof text, "futures %d answers %d unwiped %d clients %d released %d", futures,
                       answers, unwiped, clients, released);
    return answer(text, len);
  }
  if (strstr(request, "serviceAccountToken")) return answer("7", 1);
  if (strstr(request, "VaultsList")) return answer("[]", 2);
  return answer(request, strlen(request));
}

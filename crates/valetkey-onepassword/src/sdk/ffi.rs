//! The C interface of the SDK core: UniFFI, contract 25. The one module of ours that has `unsafe`.
//!
//! It turns four things into safe Rust: functions of a library, buffers that belong to the library, futures
//! that are polled through a callback, and the status that every call leaves behind. What the texts in the
//! buffers mean is not known here; nor is which library it is, which [`super::library`] has checked.
//!
//! Invariants:
//! - The library is never unloaded: its own threads run in it.
//! - A future is freed once, and only after its last poll has returned, wherever that runs.
//! - What the core gave is wiped before it goes back to the core. What it was given it owns; its own copies,
//!   of the token above all, cannot be wiped from here.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;
use std::sync::Arc;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tokio::sync::{Semaphore, oneshot};
use zeroize::{Zeroize as _, Zeroizing};

use super::library::Place;

/// The functions of a loaded core.
pub(super) struct Core {
    init_client: StartFn,
    invoke: StartFn,
    release_client: SinkFn,
    buffer_from_bytes: FromBytesFn,
    buffer_free: SinkFn,
    future_poll: PollFn,
    future_cancel: FutureFn,
    future_complete: CompleteFn,
    future_free: FutureFn,
    /// One for each poll that runs: one that hangs holds its own for ever, and takes a thread with it.
    pub(super) polls: Arc<Semaphore>,
}

/// Bytes that the core gave: the answer to a call. Wiped and given back when dropped.
pub(super) struct Answer {
    /// INVARIANT: as [`RustBuffer::is_sound`] says, and not given back yet.
    buffer: RustBuffer,
    core: Arc<Core>,
}

/// How a call fails.
pub(super) enum CoreError {
    /// The core says no, in its own words: mostly JSON, sometimes a plain text.
    Refused(Zeroizing<String>),
    /// It panicked, or broke the contract: the client that was called is not to be used again.
    Broken(&'static str),
}

/// Why a library is no core that can be called.
#[derive(Debug, thiserror::Error)]
pub(super) enum InterfaceError {
    #[error("it cannot be loaded: {0}")]
    Load(libloading::Error),
    #[error("it has no function `{0}`")]
    Function(&'static str),
    #[error("it speaks UniFFI contract {0}, and only {CONTRACT} is known")]
    Contract(u32),
    #[error("the checksum of its function `{function}` is {found}, and {known} is known")]
    Checksum { function: &'static str, found: u16, known: u16 },
}

impl Core {
    /// Loads a library and checks that it has the interface that is known. Loading runs code in it, so it
    /// takes a [`Place`], which is made of pinned bytes alone.
    pub(super) fn load(place: &Place) -> Result<Self, InterfaceError> {
        // SAFETY: the bytes are those of a release of the core, or of what the operator pinned as one; their
        // initialisers do nothing that harms.
        let library = unsafe { Library::open(Some(place.path()), RTLD_NOW | RTLD_LOCAL) };
        let library = Symbols(library.map_err(InterfaceError::Load)?.into_raw());
        // SAFETY: the type is that of the function in every contract so far.
        let contract: unsafe extern "C" fn() -> u32 = unsafe { library.function(CONTRACT_FUNCTION) }?;
        // SAFETY: it takes nothing and gives a number.
        let contract = unsafe { contract() };
        if contract != CONTRACT {
            return Err(InterfaceError::Contract(contract));
        }
        for (function, known) in CHECKSUMS {
            // SAFETY: checksums have this type.
            let checksum: unsafe extern "C" fn() -> u16 = unsafe { library.function(function) }?;
            // SAFETY: it takes nothing and gives a number.
            let found = unsafe { checksum() };
            if found != known {
                return Err(InterfaceError::Checksum { function, found, known });
            }
        }
        library.core()
    }

    /// Makes a client. The answer is its id.
    pub(super) async fn init_client(self: &Arc<Self>, config: &[u8]) -> Result<Answer, CoreError> {
        Call::start(self, self.init_client, config)?.answer().await
    }

    /// Asks a client.
    pub(super) async fn invoke(self: &Arc<Self>, request: &[u8]) -> Result<Answer, CoreError> {
        Call::start(self, self.invoke, request)?.answer().await
    }

    /// Lets go of a client and what it holds. Asks nobody.
    pub(super) fn release_client(self: &Arc<Self>, id: &[u8]) -> Result<(), CoreError> {
        let argument = self.buffer(id)?;
        let mut status = CallStatus::new();
        // SAFETY: the buffer came from the core, which takes it over; the status outlives the call.
        unsafe { (self.release_client)(argument, &raw mut status) };
        status.answer(self, RustBuffer::EMPTY).map(drop)
    }

    /// A copy of `bytes` in the core's memory, for it to take over.
    fn buffer(self: &Arc<Self>, bytes: &[u8]) -> Result<RustBuffer, CoreError> {
        let len = i32::try_from(bytes.len()).map_err(|_| CoreError::Broken("the request is too long"))?;
        let mut status = CallStatus::new();
        // SAFETY: the core copies `len` bytes from where they are, and both outlive the call.
        let buffer =
            unsafe { (self.buffer_from_bytes)(ForeignBytes { len, data: bytes.as_ptr() }, &raw mut status) };
        let mut answer = status.answer(self, buffer)?;
        Ok(std::mem::replace(&mut answer.buffer, RustBuffer::EMPTY))
    }
}

impl Answer {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        let RustBuffer { capacity: _, len, data } = self.buffer;
        if data.is_null() {
            return &[];
        }
        // SAFETY: the buffer is sound and ours until the drop; nobody writes to it before.
        unsafe { slice::from_raw_parts(data, len.try_into().unwrap_or_default()) }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let buffer = std::mem::replace(&mut self.buffer, RustBuffer::EMPTY);
        if buffer.data.is_null() {
            return;
        }
        let capacity = buffer.capacity.try_into().unwrap_or_default();
        // SAFETY: the buffer is sound and ours; as `MaybeUninit`, what was never written may be written too.
        let memory = unsafe { slice::from_raw_parts_mut(buffer.data.cast::<MaybeUninit<u8>>(), capacity) };
        memory.zeroize();
        let mut status = CallStatus::new();
        // SAFETY: the buffer came from the core and is given back once.
        unsafe { (self.core.buffer_free)(buffer, &raw mut status) };
    }
}

/// A future of the core, on its way.
struct Call {
    core: Arc<Core>,
    /// INVARIANT: a live future; freed by the drop and nowhere else.
    future: *mut c_void,
}

// SAFETY: the core's futures are made to be polled, cancelled and freed on any thread; it locks them.
unsafe impl Send for Call {}
// SAFETY: as above; what is called through a shared reference locks.
unsafe impl Sync for Call {}

impl Call {
    fn start(core: &Arc<Core>, function: StartFn, argument: &[u8]) -> Result<Self, CoreError> {
        let argument = core.buffer(argument)?;
        // SAFETY: the buffer came from the core, which takes it over.
        let future = unsafe { function(argument) };
        if future.is_null() {
            return Err(CoreError::Broken("no future was given"));
        }
        Ok(Self { core: Arc::clone(core), future })
    }

    /// Polls until the answer is there. Dropping it cancels the call.
    async fn answer(self) -> Result<Answer, CoreError> {
        let call = Arc::new(self);
        loop {
            let (waker, woken) = oneshot::channel();
            let polled = Arc::clone(&call);
            // Where too many hang, this waits until the caller gives up.
            let permit = Arc::clone(&call.core.polls).acquire_owned().await;
            let permit = permit.map_err(|_| CoreError::Broken("it takes no more polls"))?;
            // A poll may compute for the better part of a second, as signing in does: not on a thread that
            // others wait for. The task keeps the future alive until the poll has returned.
            tokio::task::spawn_blocking(move || {
                polled.poll(waker);
                drop(permit);
            });
            match woken.await {
                Ok(READY) => return call.complete(),
                Ok(MAYBE_READY) => {}
                Ok(_) | Err(_) => return Err(CoreError::Broken("a poll came to nothing")),
            }
        }
    }

    fn poll(&self, waker: oneshot::Sender<i8>) {
        let waker = Box::into_raw(Box::new(waker));
        // SAFETY: the future is live while `self` is. The core gives `waker` to `wake` exactly once, now or
        // later, cancelled or not.
        unsafe { (self.core.future_poll)(self.future, wake, waker.expose_provenance()) };
    }

    fn complete(&self) -> Result<Answer, CoreError> {
        let mut status = CallStatus::new();
        // SAFETY: the future is live and said that it is ready; the status outlives the call.
        let buffer = unsafe { (self.core.future_complete)(self.future, &raw mut status) };
        status.answer(&self.core, buffer)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: the future is live, and no poll runs: each has its own reference to `self`.
        unsafe { (self.core.future_cancel)(self.future) };
        // SAFETY: as above, and nobody uses it afterwards.
        unsafe { (self.core.future_free)(self.future) };
    }
}

/// Called by the core, on whichever thread, once for each poll.
extern "C" fn wake(waker: usize, code: i8) {
    let waker = ptr::with_exposed_provenance_mut::<oneshot::Sender<i8>>(waker);
    // SAFETY: it is the box that `Call::poll` let go of, and comes back once.
    let waker = unsafe { Box::from_raw(waker) };
    // Nobody listens any more where the call was cancelled.
    let _ = waker.send(code);
}

/// The core's `RustBuffer`. Whoever has it has to give it back: no `Clone`.
#[repr(C)]
struct RustBuffer {
    capacity: i32,
    len: i32,
    data: *mut u8,
}

// SAFETY: memory of the core's own, without ties to a thread.
unsafe impl Send for RustBuffer {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for RustBuffer {}

impl RustBuffer {
    const EMPTY: Self = Self { capacity: 0, len: 0, data: ptr::null_mut() };

    fn is_sound(&self) -> bool {
        (0..=self.capacity).contains(&self.len) && (!self.data.is_null() || self.len == 0)
    }
}

#[repr(C)]
struct ForeignBytes {
    len: i32,
    data: *const u8,
}

/// The core's `RustCallStatus`.
#[repr(C)]
struct CallStatus {
    code: i8,
    error: RustBuffer,
}

impl CallStatus {
    const fn new() -> Self {
        Self { code: SUCCESS, error: RustBuffer::EMPTY }
    }

    /// What came of a call that gave `buffer`.
    fn answer(self, core: &Arc<Core>, buffer: RustBuffer) -> Result<Answer, CoreError> {
        let Self { code, error } = self;
        // What is not sound belongs to nobody; better lost than freed.
        let [buffer, error] = [buffer, error]
            .map(|buffer| buffer.is_sound().then(|| Answer { buffer, core: Arc::clone(core) }));
        let (Some(buffer), Some(error)) = (buffer, error) else {
            return Err(CoreError::Broken("a buffer is not sound"));
        };
        match code {
            SUCCESS => Ok(buffer),
            FAILURE => Err(error_text(error.bytes())),
            _ => Err(CoreError::Broken("it panicked")),
        }
    }
}

/// An error, as the core writes it: the variant, of which there is one, and a text with its length before it.
fn error_text(bytes: &[u8]) -> CoreError {
    let text = bytes.split_first_chunk().and_then(|(variant, rest)| {
        let (length, text) = rest.split_first_chunk()?;
        let is_whole = u32::from_be_bytes(*variant) == 1
            && usize::try_from(u32::from_be_bytes(*length)).is_ok_and(|length| length == text.len());
        is_whole.then(|| Zeroizing::new(String::from_utf8_lossy(text).into_owned()))
    });
    text.map_or(CoreError::Broken("an error is malformed"), CoreError::Refused)
}

/// A library that stays loaded, by its handle.
struct Symbols(*mut c_void);

impl Symbols {
    /// # Safety
    /// `T` must be the type of a pointer to the function of this name.
    unsafe fn function<T: Copy>(&self, name: &'static str) -> Result<T, InterfaceError> {
        // SAFETY: the handle came from `into_raw` and was never closed; `into_raw` again, so that it never is.
        let library = unsafe { Library::from_raw(self.0) };
        // SAFETY: the caller knows the type.
        let symbol = unsafe { library.get::<T>(name) }.map(|symbol| *symbol);
        let _ = library.into_raw();
        symbol.map_err(|_| InterfaceError::Function(name))
    }

    /// The functions of a core of contract 25.
    fn core(&self) -> Result<Core, InterfaceError> {
        // SAFETY: here and below, the types are those of contract 25, which the caller has checked; it and the
        // checksums of the first three stand for all.
        let init_client = unsafe { self.function("uniffi_op_uniffi_core_fn_func_init_client") }?;
        // SAFETY: as above.
        let invoke = unsafe { self.function("uniffi_op_uniffi_core_fn_func_invoke") }?;
        // SAFETY: as above.
        let release_client = unsafe { self.function("uniffi_op_uniffi_core_fn_func_release_client") }?;
        // SAFETY: as above.
        let buffer_from_bytes = unsafe { self.function("ffi_op_uniffi_core_rustbuffer_from_bytes") }?;
        // SAFETY: as above.
        let buffer_free = unsafe { self.function("ffi_op_uniffi_core_rustbuffer_free") }?;
        // SAFETY: as above.
        let future_poll = unsafe { self.function("ffi_op_uniffi_core_rust_future_poll_rust_buffer") }?;
        // SAFETY: as above.
        let future_cancel = unsafe { self.function("ffi_op_uniffi_core_rust_future_cancel_rust_buffer") }?;
        // SAFETY: as above.
        let future_complete =
            unsafe { self.function("ffi_op_uniffi_core_rust_future_complete_rust_buffer") }?;
        // SAFETY: as above.
        let future_free = unsafe { self.function("ffi_op_uniffi_core_rust_future_free_rust_buffer") }?;
        Ok(Core {
            init_client,
            invoke,
            release_client,
            buffer_from_bytes,
            buffer_free,
            future_poll,
            future_cancel,
            future_complete,
            future_free,
            polls: Arc::new(Semaphore::new(POLLS_MAX)),
        })
    }
}

type StartFn = unsafe extern "C" fn(RustBuffer) -> *mut c_void;
type SinkFn = unsafe extern "C" fn(RustBuffer, *mut CallStatus);
type FromBytesFn = unsafe extern "C" fn(ForeignBytes, *mut CallStatus) -> RustBuffer;
type PollFn = unsafe extern "C" fn(*mut c_void, extern "C" fn(usize, i8), usize);
type FutureFn = unsafe extern "C" fn(*mut c_void);
type CompleteFn = unsafe extern "C" fn(*mut c_void, *mut CallStatus) -> RustBuffer;

/// From 26 on, lengths are of 64 bits: another layout.
const CONTRACT: u32 = 25;
const CONTRACT_FUNCTION: &str = "ffi_op_uniffi_core_uniffi_contract_version";
const CHECKSUMS: [(&str, u16); 4] = [
    ("uniffi_op_uniffi_core_checksum_func_init_client", 45_066),
    ("uniffi_op_uniffi_core_checksum_func_invoke", 29_143),
    ("uniffi_op_uniffi_core_checksum_func_invoke_sync", 49_373),
    ("uniffi_op_uniffi_core_checksum_func_release_client", 57_155),
];

/// More than there are calls at once, and few beside all threads of the runtime.
pub(super) const POLLS_MAX: usize = 32;
const SUCCESS: i8 = 0;
const FAILURE: i8 = 1;
const READY: i8 = 0;
const MAYBE_READY: i8 = 1;

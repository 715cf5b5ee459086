//! Quantized LoRA fine-tuning, over the C library of that name.
//!
//! ```no_run
//! let context = qlora::Context::new(qlora::Backend::Cpu)?;
//! let weight = context.quantize("nf4-dq", 24, 64, &[0.5; 24 * 64])?;
//! let (x, mut y) = (context.buffer(&[1.0; 5 * 64])?, context.zeros(5 * 24)?);
//! weight.matmul(&x, 5, &mut y)?;
//! println!("{:?}", y.read()?);
//! # Ok::<(), qlora::Error>(())
//! ```
//!
//! Everything of qlora.h is in the crate `qlora-sys`; this one wraps what a first program needs. A context serves one thread at a
//! time: it is `Send` and not `Sync`.
mod training;

pub use qlora_sys as sys;
pub use training::Adapter;

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Mutex;

/// What the library answered: a status of qlora.h and the sentence that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub status: i32,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Backend {
    Reference = sys::QLORA_BACKEND_REF,
    Cpu = sys::QLORA_BACKEND_CPU,
    Cuda = sys::QLORA_BACKEND_CUDA,
    Vulkan = sys::QLORA_BACKEND_VULKAN,
}

/// (major, minor, patch) of the library that runs.
pub fn version() -> (u32, u32, u32) {
    let number = unsafe { sys::qlora_version() };
    (number / 1_000_000, number / 1000 % 1000, number % 1000)
}

type Log = Box<dyn FnMut(&str) + Send>;

/// What a log callback needs: the closure, and the panic that it may have ended in.
struct Sink {
    log: Mutex<Log>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

unsafe extern "C" fn forward(user: *mut c_void, line: *const c_char) {
    let sink = &*(user as *const Sink);
    let line = CStr::from_ptr(line).to_string_lossy();
    // A panic may not pass through C; it goes on where the library was called.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut log = sink.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        (*log)(&line)
    }));
    if let Err(panic) = outcome {
        *sink.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
    }
}

fn text(buffer: &[u8]) -> String {
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}

/// One device.
pub struct Context {
    raw: *mut sys::qlora_context,
    sink: Option<Box<Sink>>,
    scratch: Cell<(sys::qlora_span, u64)>,
}

unsafe impl Send for Context {}

impl Context {
    pub fn new(backend: Backend) -> Result<Self> {
        Self::create(backend as i32, None)
    }

    /// With a sink of whole lines. A panic in it comes out of the call that logged.
    pub fn with_log(backend: Backend, log: impl FnMut(&str) + Send + 'static) -> Result<Self> {
        Self::create(backend as i32, Some(Box::new(log)))
    }

    fn create(backend: i32, log: Option<Log>) -> Result<Self> {
        let sink = log.map(|log| Box::new(Sink { log: Mutex::new(log), panic: Mutex::new(None) }));
        let mut message = [0u8; 512];
        let mut args = sys::qlora_context_args { backend, message: message.as_mut_ptr() as *mut c_char, message_bytes: message.len(), ..Default::default() };
        if let Some(sink) = &sink {
            args.log = Some(forward);
            args.log_user = &**sink as *const Sink as *mut c_void;
        }
        let mut made = Context { raw: ptr::null_mut(), sink, scratch: Cell::default() };
        let status = unsafe { sys::qlora_context_create(&args, &mut made.raw) };
        made.resume();
        if status != sys::QLORA_OK {
            return Err(Error { status, message: text(&message) });
        }
        Ok(made)
    }

    /// Goes on with a panic that a callback ended in.
    fn resume(&self) {
        let panic = self.sink.as_ref().and_then(|sink| sink.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    pub(crate) fn check(&self, status: i32) -> Result<()> {
        self.resume();
        if status == sys::QLORA_OK {
            return Ok(());
        }
        let message = unsafe { CStr::from_ptr(sys::qlora_context_message(self.raw)) }.to_string_lossy().into_owned();
        Err(Error { status, message })
    }

    /// Device memory that an operation may use meanwhile: asked for by its number and args, kept for the next one.
    pub(crate) fn scratch<Args>(&self, operation: u32, args: &Args) -> Result<sys::qlora_span> {
        let mut needed = 0;
        self.check(unsafe { sys::qlora_operation_scratch(self.raw, operation, args as *const Args as *const c_void, &mut needed) })?;
        let (span, bytes) = self.scratch.get();
        if needed <= bytes {
            return Ok(span);
        }
        self.free(span);
        self.scratch.set(Default::default());
        let span = self.allocate(needed)?;
        self.scratch.set((span, needed));
        Ok(span)
    }

    fn allocate(&self, bytes: u64) -> Result<sys::qlora_span> {
        let mut args = sys::qlora_buffer_args { bytes, ..Default::default() };
        self.check(unsafe { sys::qlora_buffer_create(self.raw, &mut args) })?;
        Ok(args.dst)
    }

    fn free(&self, span: sys::qlora_span) {
        if span.handle != 0 {
            let args = sys::qlora_buffer_args { dst: span, ..Default::default() };
            unsafe { sys::qlora_buffer_destroy(self.raw, &args) };
        }
    }

    pub(crate) fn raw(&self) -> *mut sys::qlora_context {
        self.raw
    }

    /// Such as "cpu avx2".
    pub fn name(&self) -> Result<String> {
        let mut info = sys::qlora_context_info::default();
        self.check(unsafe { sys::qlora_context_query(self.raw, &mut info) })?;
        Ok(text(&info.name.map(|letter| letter as u8)))
    }

    /// Device memory that holds values.
    pub fn buffer(&self, values: &[f32]) -> Result<Buffer<'_>> {
        let mut made = Buffer { context: self, span: Default::default(), count: values.len() };
        if !values.is_empty() {
            made.span = self.allocate(values.len() as u64 * 4)?;
            made.write(values)?;
        }
        Ok(made)
    }

    pub fn zeros(&self, count: usize) -> Result<Buffer<'_>> {
        self.buffer(&vec![0.0; count])
    }

    /// A weight `W[rows][cols]`; format is a name such as "nf4-dq".
    pub fn quantize(&self, format: &str, rows: u64, cols: u64, values: &[f32]) -> Result<Weight<'_>> {
        let mut weight = sys::qlora_weight { rows, cols, ..Default::default() };
        let mut layout = sys::qlora_weight_layout_info::default();
        let name = CString::new(format).unwrap_or_default();
        let refused = |status| Error { status, message: format!("no weight [{rows}][{cols}] of format '{format}'") };
        let mut status = unsafe { sys::qlora_format_find(name.as_ptr(), &mut weight.format) };
        if status == sys::QLORA_OK {
            status = unsafe { sys::qlora_weight_layout(&weight, &mut layout) };
        }
        if status != sys::QLORA_OK {
            return Err(refused(status));
        }
        let planes = self.zeros((layout.total_bytes as usize + 3) / 4)?;
        status = unsafe { sys::qlora_weight_place(&mut weight, planes.span) };
        if status != sys::QLORA_OK {
            return Err(refused(status));
        }
        let source = self.buffer(values)?;
        let mut args = sys::qlora_quantize_args { weight: &weight, src: source.tensor(rows, cols), ..Default::default() };
        args.scratch = self.scratch(sys::QLORA_OP_QUANTIZE, &args)?;
        self.check(unsafe { sys::qlora_weight_quantize(self.raw, &args) })?;
        Ok(Weight { weight, planes })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.free(self.scratch.get().0);
        unsafe { sys::qlora_context_destroy(self.raw) };
    }
}

/// Device memory of a context. Its values are f32.
pub struct Buffer<'a> {
    context: &'a Context,
    span: sys::qlora_span,
    count: usize,
}

impl<'a> Buffer<'a> {
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        let args = sys::qlora_buffer_args { dst: self.span, host: values.as_ptr() as *mut c_void, bytes: values.len() as u64 * 4, ..Default::default() };
        self.context.check(unsafe { sys::qlora_buffer_write(self.context.raw, &args) })
    }

    /// The values, once all work before is done.
    pub fn read(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; self.count];
        let args = sys::qlora_buffer_args { src: self.span, host: values.as_mut_ptr() as *mut c_void, bytes: self.count as u64 * 4, ..Default::default() };
        self.context.check(unsafe { sys::qlora_buffer_read(self.context.raw, &args) })?;
        Ok(values)
    }

    pub(crate) fn span(&self) -> sys::qlora_span {
        self.span
    }

    pub(crate) fn count(&self) -> u64 {
        self.count as u64
    }

    pub(crate) fn tensor(&self, rows: u64, cols: u64) -> sys::qlora_tensor {
        sys::qlora_tensor { r#type: sys::QLORA_FORMAT_F32, rows, cols, data: self.span, ..Default::default() }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        self.context.free(self.span);
    }
}

/// A quantized matrix at rest; made by [`Context::quantize`].
pub struct Weight<'a> {
    weight: sys::qlora_weight,
    planes: Buffer<'a>,
}

impl<'a> Weight<'a> {
    pub fn rows(&self) -> u64 {
        self.weight.rows
    }

    pub fn cols(&self) -> u64 {
        self.weight.cols
    }

    /// `y[tokens][rows] = x[tokens][cols] W^T`
    pub fn matmul(&self, x: &Buffer, tokens: u64, y: &mut Buffer) -> Result<()> {
        let context = self.context();
        let mut args = sys::qlora_matmul_args { weight: &self.weight, x: x.tensor(tokens, self.cols()), y: y.tensor(tokens, self.rows()), ..Default::default() };
        args.scratch = context.scratch(sys::QLORA_OP_MATMUL, &args)?;
        context.check(unsafe { sys::qlora_weight_matmul(context.raw, &args) })
    }

    pub(crate) fn context(&self) -> &'a Context {
        self.planes.context
    }

    pub(crate) fn raw(&self) -> *const sys::qlora_weight {
        &self.weight
    }
}

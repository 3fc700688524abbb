//! The block device "state": what it holds survives the control plane, and it can stop taking writes.

pub struct Disk {
    pub bytes: Vec<u8>,
    pub writes: usize,
    /// It takes so many writes more.
    pub writes_left: Option<usize>,
}

impl Disk {
    pub fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], writes: 0, writes_left: None }
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        if self.writes_left == Some(0) {
            return false;
        }
        self.writes_left = self.writes_left.map(|left| left - 1);
        self.writes += 1;
        self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        true
    }

    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), &'static str> {
        let from = offset as usize;
        data.copy_from_slice(self.bytes.get(from..from + data.len()).ok_or("out of bounds")?);
        Ok(())
    }
}

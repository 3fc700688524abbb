//! What must be true of a name.

use petrel_wire::{
    operator::{Create, Wish},
    shim::InstanceId,
};

/// What must be true of a name.
#[derive(Debug, Default)]
pub struct Fate {
    /// What there is.
    pub known: Known,
    /// Creates that are not answered.
    pub creating: usize,
    /// Destroys that are not answered.
    pub destroying: usize,
    /// Orders that are not answered.
    pub ordered: usize,
    /// The number of the last order.
    pub orders: u64,
    /// When the first of what is not answered was asked, as the policies count it.
    pub asked_at: u64,
    /// When it was last acknowledged what it is, as the policies count it.
    pub since: u64,
    /// Nobody was told what came of an order: until the next rest it may be at anything.
    pub loose: bool,
    /// Whoever asked was told that it is being destroyed: it is gone at the next rest.
    pub going: bool,
    /// A create was refused because the shim was away: what became of it is known at the next rest.
    pub doubtful: bool,
}

/// What is known of a name.
#[derive(Debug, Default)]
pub enum Known {
    /// There is no such unikernel.
    #[default]
    Absent,
    /// There is.
    Present(Present),
    /// Nobody was told.
    Open,
}

/// A unikernel that there is.
#[derive(Debug)]
pub struct Present {
    /// What it is to be, if that is known.
    pub create: Option<Box<Create>>,
    /// What is wanted of it, if that is known.
    pub wish: Option<Wish>,
    /// Its latest monitor, if that is known.
    pub instance: Option<InstanceId>,
    /// The console's epoch in which it was created; none if it was started again.
    pub console_epoch: Option<u64>,
}

impl Fate {
    /// Whether there may be a unikernel of this name.
    pub fn may_be(&self) -> bool {
        self.creating > 0 || !matches!(self.known, Known::Absent)
    }

    /// Whether there must be one.
    pub fn must_be(&self) -> bool {
        matches!(self.known, Known::Present(_))
    }

    /// Nobody will be told what came of something.
    pub fn leave_open(&mut self) {
        (self.known, self.going) = (Known::Open, false);
    }

    /// It will be gone, and nobody will be told when.
    pub fn leave_going(&mut self) {
        if self.may_be() {
            (self.known, self.going) = (Known::Open, true);
        }
    }

    /// Nobody will be told what came of an order.
    pub fn leave_loose(&mut self) {
        self.loose = true;
        self.forget();
    }

    /// What it is to be is about to change.
    pub fn forget(&mut self) {
        if let Some(present) = self.present() {
            (present.create, present.wish) = (None, None);
        }
    }

    /// What there must be, as far as that is known.
    pub fn created(&self) -> Option<&Create> {
        match &self.known {
            Known::Present(present) => present.create.as_deref(),
            Known::Absent | Known::Open => None,
        }
    }

    /// Something about it is asked at this moment.
    pub fn asked_at(&mut self, moment: u64) {
        if self.creating + self.ordered == 0 {
            self.asked_at = moment;
        }
    }

    /// What there must be.
    pub fn present(&mut self) -> Option<&mut Present> {
        match &mut self.known {
            Known::Present(present) => Some(present),
            Known::Absent | Known::Open => None,
        }
    }

    /// Whether nobody asks for anything about it, and nobody did who was not told what came of it.
    pub fn is_left_alone(&self) -> bool {
        self.creating + self.destroying + self.ordered == 0 && !self.loose && !self.doubtful
    }

    /// What it is to be and nothing else, while it is left alone.
    pub fn certain(&self) -> Option<(&Present, &Create)> {
        match &self.known {
            Known::Present(present) if self.is_left_alone() => Some((present, present.create.as_deref()?)),
            _ => None,
        }
    }

    /// An order is asked for. Returns its number, and what was before, if that is certain.
    pub fn order(&mut self) -> (u64, Option<Box<Create>>) {
        let before = self.certain().map(|(_, create)| Box::new(create.clone()));
        self.orders += 1;
        self.ordered += 1;
        self.forget();
        (self.orders, before)
    }
}

//! What is ready, by the number that epoll keeps with it.

/// A descriptor of the thread's, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Orders,
    Port(usize),
    Stream(usize),
    Flow(usize),
}

impl Ready {
    /// As a number.
    pub fn data(self) -> u64 {
        match self {
            Self::Orders => 0,
            Self::Port(at) => 1 | (at as u64) << 2,
            Self::Stream(at) => 2 | (at as u64) << 2,
            Self::Flow(at) => 3 | (at as u64) << 2,
        }
    }

    /// What a number says.
    pub fn of(data: u64) -> Self {
        let at = (data >> 2) as usize;
        match data & 3 {
            0 => Self::Orders,
            1 => Self::Port(at),
            2 => Self::Stream(at),
            _ => Self::Flow(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_is_what_it_was() {
        for ready in [Ready::Orders, Ready::Port(0), Ready::Stream(1 << 40), Ready::Flow(7)] {
            assert_eq!(Ready::of(ready.data()), ready);
        }
    }
}

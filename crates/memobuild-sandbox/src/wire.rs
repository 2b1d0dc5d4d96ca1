//! How messages between the sandbox's processes are written: little-endian integers, length-framed bytes.
//!
//! Both ends are the same program, so there are no versions; still, what is read is checked, never trusted to fit.

use std::io;

/// Values that can be written and read again.
pub(crate) trait Wire: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes the value off the front.
    fn get(input: &mut &[u8]) -> io::Result<Self>;

    /// The value alone, as bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads a value that fills the bytes.
    fn from_bytes(mut input: &[u8]) -> io::Result<Self> {
        let value = Self::get(&mut input)?;
        if input.is_empty() { Ok(value) } else { Err(malformed()) }
    }
}

/// A message that ends early or holds an unknown tag.
pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message between the sandbox's processes")
}

/// Takes a number of bytes off the front.
pub(crate) fn take<'a>(input: &mut &'a [u8], length: usize) -> io::Result<&'a [u8]> {
    let (head, tail) = input.split_at_checked(length).ok_or_else(malformed)?;
    *input = tail;
    Ok(head)
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn get(input: &mut &[u8]) -> io::Result<Self> {
                let bytes = take(input, size_of::<Self>())?;
                bytes.try_into().map(Self::from_le_bytes).map_err(|_| malformed())
            }
        }
    )*};
}
integers!(u8, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn get(input: &mut &[u8]) -> io::Result<Self> {
        match u8::get(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed()),
        }
    }
}

/// Bytes get a type of their own, so that a `Vec<T>` of anything else can be written too.
impl Wire for Box<[u8]> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self);
    }

    fn get(input: &mut &[u8]) -> io::Result<Self> {
        get_bytes(input).map(Into::into)
    }
}

/// Appends length-framed bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    (bytes.len() as u64).put(out);
    out.extend_from_slice(bytes);
}

/// Takes length-framed bytes.
pub(crate) fn get_bytes<'a>(input: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let length = usize::try_from(u64::get(input)?).map_err(|_| malformed())?;
    take(input, length)
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        for item in self {
            item.put(out);
        }
    }

    fn get(input: &mut &[u8]) -> io::Result<Self> {
        let length = u64::get(input)?;
        (0..length).map(|_| T::get(input)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(input: &mut &[u8]) -> io::Result<Self> {
        Ok(if bool::get(input)? { Some(T::get(input)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(input: &mut &[u8]) -> io::Result<Self> {
        Ok((A::get(input)?, B::get(input)?))
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }

    fn get(input: &mut &[u8]) -> io::Result<Self> {
        Ok((A::get(input)?, B::get(input)?, C::get(input)?))
    }
}

/// Implements [`Wire`] for a struct, field by field, or for an enum, by numbered variants.
macro_rules! wire {
    (struct $name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::wire::Wire::put(&self.$field, out);)*
            }

            fn get(input: &mut &[u8]) -> std::io::Result<Self> {
                $(let $field = $crate::wire::Wire::get(input)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
    (enum $name:ident { $($tag:literal => $variant:ident { $($field:ident),* }),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.push($tag);
                        $($crate::wire::Wire::put($field, out);)*
                    })*
                }
            }

            fn get(input: &mut &[u8]) -> std::io::Result<Self> {
                match <u8 as $crate::wire::Wire>::get(input)? {
                    $($tag => {
                        $(let $field = $crate::wire::Wire::get(input)?;)*
                        Ok(Self::$variant { $($field),* })
                    })*
                    _ => Err($crate::wire::malformed()),
                }
            }
        }
    };
}
pub(crate) use wire;

#[cfg(test)]
mod tests {
    use super::*;

    type Sample = Vec<(Box<[u8]>, Option<u32>)>;

    #[test]
    fn values_round_trip_and_short_or_long_input_is_refused() {
        let value: Sample = vec![(b"a".as_slice().into(), Some(7)), (b"".as_slice().into(), None)];
        let bytes = value.to_bytes();
        assert_eq!(Sample::from_bytes(&bytes).unwrap(), value);
        for cut in 0..bytes.len() {
            assert!(Sample::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(Sample::from_bytes(&[bytes.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn a_lying_length_does_not_allocate() {
        assert!(Box::<[u8]>::from_bytes(&u64::MAX.to_le_bytes()).is_err());
        assert!(Vec::<u64>::from_bytes(&u64::MAX.to_le_bytes()).is_err());
    }
}

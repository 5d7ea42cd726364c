//! A JSON body: one object with an array of recipients somewhere in it, before or after the other fields.
//! The array streams through; the other fields are kept, up to [`HEAD_BYTES_MAX`].

use std::fmt;
use std::io::{BufReader, Read};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::body::{BUFFER_BYTES, Decoded, Meter, VALUE_BYTES_MAX};
use super::collect::Collector;
use super::given;
use super::head::{Head, read_field, repeated};
use super::problem::{FieldProblem, member};
use super::read::{HEAD_BYTES_MAX, Stop};

/// Reads the whole body: the head, and whether the array stood there.
pub(super) fn read<T>(body: &mut Decoded<impl Read>, out: &mut Collector<T>) -> Result<(Head, bool), Stop> {
    let meter = body.meter();
    meter.allow(HEAD_BYTES_MAX);
    let mut top = Top {
        head: Head::new(),
        head_bytes: 0,
        has_array: false,
        stop: None,
        meter,
        out,
    };
    let text = BufReader::with_capacity(BUFFER_BYTES, without_mark(body)?);
    let mut parser = serde_json::Deserializer::from_reader(text);
    let read = parser.deserialize_map(&mut top).and_then(|()| parser.end());
    match (read, top.stop) {
        (Ok(()), _) => Ok((top.head, top.has_array)),
        (Err(_), Some(stop)) => Err(stop),
        (Err(e), None) => Err(in_words(e)),
    }
}

/// The body without the byte order mark that some editors put before it. RFC 8259 8.1 lets a parser ignore it.
fn without_mark(mut body: impl Read) -> std::io::Result<impl Read> {
    let mut start = Vec::with_capacity(UTF8_MARK.len());
    body.by_ref().take(UTF8_MARK.len() as u64).read_to_end(&mut start)?;
    if start == UTF8_MARK {
        start.clear();
    }
    Ok(std::io::Cursor::new(start).chain(body))
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

fn in_words(e: serde_json::Error) -> Stop {
    let place = format!("line {}, column {}", e.line(), e.column());
    match e.classify() {
        Category::Io => Stop::Fault(std::io::Error::from(e).into()),
        Category::Eof => Stop::Malformed(FieldProblem::new(
            "#",
            "invalid_json",
            format!("the body ends at {place} before the JSON is complete"),
        )),
        Category::Syntax => {
            let words = e.to_string();
            let bare = words.split(" at line ").next().unwrap_or(&words).to_owned();
            Stop::Malformed(FieldProblem::new("#", "invalid_json", format!("{place}: {bare}")))
        }
        Category::Data => {
            Stop::Invalid(FieldProblem::new("#", "wrong_type", "the body must be a JSON object, such as {\"from\": …}"))
        }
    }
}

/// The outermost object.
struct Top<'c, T> {
    head: Head,
    head_bytes: u64,
    has_array: bool,
    /// Why our own code stopped the parser.
    stop: Option<Stop>,
    meter: Meter,
    out: &'c mut Collector<T>,
}

impl<T> Top<'_, T> {
    fn stop<E: Error>(&mut self, stop: impl Into<Stop>) -> E {
        self.stop = Some(stop.into());
        E::custom("stopped")
    }

    fn keep<E: Error>(&mut self, name: String, value: &RawValue) -> Result<(), E> {
        self.head_bytes += self.meter.restart();
        if self.head_bytes > HEAD_BYTES_MAX + BUFFER_BYTES as u64 {
            let detail = format!("the fields beside the recipients have more than {HEAD_BYTES_MAX} bytes");
            return Err(self.stop(Stop::Invalid(FieldProblem::new("#", "too_long", detail))));
        }
        if self.head.contains_key(&name) {
            return Err(self.repeated(&name));
        }
        match read_field(&name, value) {
            Ok(value) => {
                self.head.insert(name, value);
                Ok(())
            }
            Err(problem) => Err(self.stop(Stop::Invalid(problem))),
        }
    }

    fn repeated<E: Error>(&mut self, name: &str) -> E {
        self.stop(Stop::Invalid(repeated(name)))
    }
}

impl<'de, T> Visitor<'de> for &mut Top<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name != self.out.array() {
                let value = map.next_value::<Box<RawValue>>()?;
                self.keep(name, &value)?;
                continue;
            }
            if self.has_array {
                return Err(self.repeated(&name));
            }
            map.next_value_seed(Array(self))?;
        }
        Ok(())
    }
}

/// The array of recipients.
struct Array<'t, 'c, T>(&'t mut Top<'c, T>);

impl<'de, T> DeserializeSeed<'de> for Array<'_, '_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<T> Array<'_, '_, T> {
    fn not_an_array<E: Error>(self) -> E {
        let name = self.0.out.array();
        let detail = format!("{name} must be an array, such as [{{\"email\": \"anna@example.org\"}}]");
        self.0
            .stop(Stop::Invalid(FieldProblem::new(member("#", name), "wrong_type", detail)))
    }
}

impl<'de, T> Visitor<'de> for Array<'_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of recipients")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let top = self.0;
        top.has_array = true;
        // What was read ahead belongs to the head; from here on each recipient is measured by itself.
        top.head_bytes += top.meter.restart();
        top.meter.allow(VALUE_BYTES_MAX);
        while let Some(text) = array.next_element::<Box<RawValue>>()? {
            top.meter.restart();
            let given = given::from_json(text.get(), top.out.next_place(None));
            if let Err(nobody) = top.out.take(given) {
                return Err(top.stop(nobody));
            }
        }
        top.meter.allow(HEAD_BYTES_MAX);
        Ok(())
    }

    /// `null` is the same as not given.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(self.not_an_array())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Err(self.not_an_array())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Err(self.not_an_array())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(self.not_an_array())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(self.not_an_array())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.not_an_array())
    }
}

//! How values of this program stand in SQLite's columns. Each type goes in and comes out in one place, so
//! that a row nobody here wrote is an error of the row, not a panic or a guess.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Error;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value as JSON text.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> ToSql for Json<&T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = serde_json::to_string(self.0).map_err(|e| Error::ToSqlConversionFailure(e.into()))?;
        Ok(text.into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let parsed = serde_json::from_str(value.as_str()?).map_err(|e| FromSqlError::Other(e.into()));
        parsed.map(Self)
    }
}

/// A value whose JSON is one string, as that string without the quotes: ids, repositories, routes.
pub(super) struct Word<T>(pub(super) T);

impl<T: Serialize> ToSql for Word<&T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(self.0) {
            Ok(serde_json::Value::String(text)) => Ok(text.into()),
            Ok(other) => Err(Error::ToSqlConversionFailure(
                format!("{other} is not one word").into(),
            )),
            Err(e) => Err(Error::ToSqlConversionFailure(e.into())),
        }
    }
}

impl<T: DeserializeOwned> FromSql for Word<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = serde_json::Value::String(value.as_str()?.to_owned());
        let parsed = serde_json::from_value(text).map_err(|e| FromSqlError::Other(e.into()));
        parsed.map(Self)
    }
}

/// A number that is never negative. SQLite's integers are signed; more than `i64::MAX` is stored as that.
pub(super) struct Whole(pub(super) u64);

impl ToSql for Whole {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let number = i64::try_from(self.0).unwrap_or(i64::MAX);
        Ok(ToSqlOutput::Owned(Value::Integer(number)))
    }
}

impl FromSql for Whole {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number)
            .map(Self)
            .map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// Milliseconds since 1970; a clock before that counts as 1970.
pub(super) fn ms(time: SystemTime) -> Whole {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Whole(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Acquisition;
    use crate::trust::Route;

    fn text(value: &impl ToSql) -> String {
        match value.to_sql().unwrap() {
            ToSqlOutput::Owned(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_route_is_stored_as_a_bare_word_and_read_back() {
        assert_eq!(text(&Word(&Route::Native)), "native");
        let read: Word<Route> = FromSql::column_result(ValueRef::Text(b"native")).unwrap();
        assert_eq!(read.0, Route::Native);
    }

    #[test]
    fn a_word_that_is_none_is_refused_both_ways() {
        assert!(Word(&Acquisition::Workspace).to_sql().is_err());
        assert!(Word::<Route>::column_result(ValueRef::Text(b"elsewhere")).is_err());
    }

    #[test]
    fn huge_numbers_are_capped_and_negative_ones_refused() {
        let capped = Whole(u64::MAX);
        assert_eq!(
            capped.to_sql().unwrap(),
            ToSqlOutput::Owned(Value::Integer(i64::MAX))
        );
        assert!(Whole::column_result(ValueRef::Integer(-1)).is_err());
    }
}

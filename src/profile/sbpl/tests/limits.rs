//! Runs that would take all of the time, the memory or the stack, each by a way of its own.

use super::*;

/// What is told first of a profile that does not compile.
fn told(rules: &str) -> String {
    problems(&format!("(version 1)\n{rules}")).swap_remove(0)
}

/// Functions that grow a text and a list by doubling.
const GROWN: &str = "
(define (text n) (if (= n 0) \"/a\" (let ((half (text (- n 1)))) (string-append half half))))
(define (items n) (if (= n 0) '(1) (let ((half (items (- n 1)))) (append half half))))
";

#[test]
fn procedures_that_call_procedures_nest_only_so_deep() {
    let nest = "(define (nest n l) (if (= n 0) l (nest (- n 1) (list apply l))))";
    let told = told(&format!("{nest}\n(apply apply (nest 50000 (list + '())))"));
    assert!(told.contains("calls are nested"), "{told}");
}

#[test]
fn templates_in_templates_nest_only_so_deep() {
    let (open, close) = ("(".repeat(200), ")".repeat(200));
    let told = told(&format!("(define (f n) `{open},(f n){close})\n(f 1)"));
    assert!(told.contains("calls are nested"), "{told}");
}

#[test]
fn filters_in_sockets_and_around_rules_nest_only_so_deep() {
    let sockets = "(define (f x) (f (remote unix-socket x)))\n(f (literal \"/a\"))";
    assert!(told(sockets).contains("filters are nested"));
    let (open, close) = ("(with-filter (literal \"/a\") ".repeat(100), ")".repeat(100));
    assert!(told(&format!("{open}(deny file-read*){close}")).contains("filters are nested"));
}

#[test]
fn texts_count_as_memory_wherever_they_go() {
    let memory = |rules: &str| {
        let told = told(&format!("{GROWN}{rules}"));
        assert!(told.contains("too much memory"), "{told}");
    };
    memory("(path-ancestors (text 14))");
    memory("(define (f s) (allow file-read* (literal s)) (f s))\n(f (text 14))");
    memory("(define (f s) (allow file-read* (with message s)) (f s))\n(f (text 14))");
    memory("(define (f o) (apply allow o) (f o))\n(f (map (lambda (n) file-read*) (items 12)))");
    memory("(define (f n) (allow file-read* (regex \"^[^/]+/[^.]+\")) (f n))\n(f 1)");
    let long = told(&format!(
        "{GROWN}(define s (text 14))(apply string-append (map (lambda (n) s) (items 10)))"
    ));
    assert!(long.contains("bytes"), "{long}");
    let long = told(&format!(
        "{GROWN}(define s (text 14))(apply extension (map (lambda (n) s) (items 10)))"
    ));
    assert!(long.contains("bytes"), "{long}");
}

#[test]
fn what_is_looked_at_again_and_again_counts_as_steps() {
    let steps = |rules: &str| {
        let told = told(&format!(
            "{GROWN}(define l (items 16))\n(define s (text 14))\n{rules}"
        ));
        assert!(told.contains("steps were taken"), "{told}");
    };
    steps("(let loop () (length l) (loop))");
    steps("(define k (append l '()))\n(let loop () (equal? l k) (loop))");
    steps("(let loop () (string-length s) (loop))");
    steps("(for-each length (map (lambda (n) l) l))");
    steps("(memq l (map (lambda (n) (cdr l)) l))");
    steps(&format!(
        "(let loop () (cond (#t (loop)) {}))",
        "(1)".repeat(50_000)
    ));
    steps(&format!("(let loop () (and #f {}) (loop))", "1 ".repeat(50_000)));
}

#[test]
fn many_names_long_names_and_many_kinds_of_filters_take_no_longer_than_few() {
    let defines: String = (0..50_000).map(|n| format!("(define v{n} {n})")).collect();
    assert!(rules(&defines).is_empty());
    assert!(told(&format!("(allow {})", "x".repeat(1_000_000))).contains("means nothing"));
    let asked = "(define (f n) (if (> n 0) (begin (defined? 'nothing-at-all) (f (- n 1)))))\n(f 50000)";
    assert!(rules(asked).is_empty());
    let many = format!(
        "{GROWN}(apply allow (append (map (lambda (n) file-read*) (items 14)) (map (lambda (n) (literal \"/a\")) (items 14))))"
    );
    assert_eq!(
        compiled(&format!("(version 1){many}")).rules[0].filters.len(),
        1 << 14
    );
}

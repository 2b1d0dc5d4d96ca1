fn main() {
    println!("{} words", words::count("one two three"));
}

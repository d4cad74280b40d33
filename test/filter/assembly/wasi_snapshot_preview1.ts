// WASI functions: the name of this file is the name of the module that they are imported from.
export declare function random_get(at: usize, size: usize): i32;
export declare function clock_time_get(id: i32, precision: i64, at: usize): i32;

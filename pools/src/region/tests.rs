use super::*;

fn bytes_of(region: &mut Region) -> &mut [u8] {
    // SAFETY: mapped, zeroed by the system, and nobody else knows it.
    unsafe { std::slice::from_raw_parts_mut(region.start().as_ptr(), region.len()) }
}

#[test]
fn memory_is_zeroed_writable_and_of_whole_pages() {
    for pages in [HugePages::Off, HugePages::Transparent, HugePages::Explicit] {
        let mut region = Region::new(100_000, pages, None).unwrap();
        assert!(region.len() >= 100_000 && region.len().is_multiple_of(PAGE_BYTES));
        assert_eq!(region.len(), region.report().bytes);
        assert!(!region.is_empty());
        assert!(bytes_of(&mut region).iter().all(|byte| *byte == 0));
        bytes_of(&mut region).fill(1);
        assert!(region.report().pages == pages || region.report().fallback.is_some());
    }
}

#[test]
fn a_region_of_no_bytes_has_a_page() {
    assert_eq!(Region::new(0, HugePages::Off, None).unwrap().len(), PAGE_BYTES);
}

#[test]
fn address_space_that_cannot_be_had_is_an_error_that_says_what_to_do() {
    for bytes in [usize::MAX, usize::MAX / 2] {
        for pages in [HugePages::Off, HugePages::Transparent, HugePages::Explicit] {
            let error = Region::new(bytes, pages, None).unwrap_err();
            assert!(error.to_string().starts_with("cannot map"), "{error}");
            assert!(error.to_string().contains("memory.pool_bytes"), "{error}");
        }
    }
}

#[test]
fn a_node_that_is_not_there_is_stated() {
    for node in [1023, u32::MAX] {
        let region = Region::new(1, HugePages::Off, Some(node)).unwrap();
        assert_eq!(region.report().node, None);
        let text = region.report().to_string();
        assert!(text.contains(&format!("not bound to node {node}")), "{text}");
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use super::*;

    #[test]
    fn memory_that_shall_become_huge_begins_where_a_huge_page_can() {
        let region = Region::new(3 << 20, HugePages::Transparent, None).unwrap();
        assert_eq!(region.len(), 3 << 20);
        assert_eq!(region.start().as_ptr().addr() % (2 << 20), 0);
    }

    #[test]
    fn huge_pages_that_are_not_there_are_replaced_and_the_report_says_why() {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let number = |name| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<usize>().unwrap())
        };
        let bytes = (number("HugePages_Free:") + 1) * number("Hugepagesize:") * 1024;
        let region = Region::new(bytes, HugePages::Explicit, None).unwrap();
        let fallback = region.report().fallback.as_deref().unwrap();
        assert!(fallback.starts_with("no huge pages: "), "{fallback}");
        assert_ne!(region.report().pages, HugePages::Explicit);
    }

    #[test]
    fn the_first_node_is_there_unless_binding_is_forbidden() {
        let mut region = Region::new(1 << 20, HugePages::Off, Some(0)).unwrap();
        bytes_of(&mut region).fill(1);
        let report = region.report();
        assert_eq!(report.node == Some(0), report.fallback.is_none());
        assert!(report.node.is_none_or(|node| node == 0));
    }

    #[test]
    fn pages_are_paid_for_when_they_are_touched() {
        let mut region = Region::new(64 << 20, HugePages::Off, None).unwrap();
        assert_eq!(resident_pages(&region), 0);
        bytes_of(&mut region)[5 << 20] = 1;
        // One, or as many as are in a huge page where the system makes them without being asked.
        assert!((1..=512).contains(&resident_pages(&region)));
    }

    fn resident_pages(region: &Region) -> usize {
        let mut pages = vec![0_u8; region.len() / 4096];
        let start = region.start().as_ptr().cast();
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let result = unsafe { libc::mincore(start, region.len(), pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }
}

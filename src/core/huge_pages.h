// Huge pages for memory of ours and of the host.
#pragma once

#include <cstddef>

namespace hata {

/// Memory that is not yet written: to be backed by huge pages when it is. A wish: small pages work
/// too.
void prefer_huge_pages(void* data, size_t bytes);

/// Memory in use: moves it to huge pages, as far as it holds whole ones; contents stay, and others
/// may read and write meanwhile. Rows scattered over a long cache cost a page walk each, otherwise.
/// Returns the bytes now in huge pages: less than asked for where the kernel is older than 6.1 or
/// has none free.
size_t move_to_huge_pages(void* data, size_t bytes);

}  // namespace hata
